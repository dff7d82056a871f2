// A worker that colours code beside the page: no code is so hard that it would hold the page up.
import hljs from "./vendor/highlight.js";

const MOST = 6000; // coloured words; more take long to show

addEventListener("message", ({ data: { source, language } }) => {
  const html = hljs.getLanguage(language) ? hljs.highlight(source, { language }).value : "";
  postMessage(html.split("<span").length > MOST ? "" : html);
});
