// The login page: sends the password, and says if it was wrong.
import { send } from "./api.js";

const form = document.getElementById("login");
const wrong = document.getElementById("wrong");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  wrong.textContent = "";
  const button = form.querySelector("button");
  button.disabled = true;
  try {
    await send("POST", "/login", { password: form.password.value });
    location.assign(next());
  } catch (error) {
    wrong.textContent = error.message;
    form.password.select();
  } finally {
    button.disabled = false;
  }
});

// Only a path of this site: "//host" and "/\host" would lead elsewhere.
function next() {
  const path = new URLSearchParams(location.search).get("next") || "/";
  return /^\/([cs]\/[\w-]+)?$/.test(path) ? path : "/";
}
