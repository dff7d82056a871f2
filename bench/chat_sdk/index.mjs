// Vercel's Chat SDK, streaming what the model says as its documentation shows (docs/streaming.mdx
// in the package `chat`, "Custom streams"). Everything it knows is in the environment.
//
//     node index.mjs discord|slack

import { createDiscordAdapter } from "@chat-adapter/discord";
import { createSlackAdapter } from "@chat-adapter/slack";
import { createMemoryState } from "@chat-adapter/state-memory";
import { Chat, ConsoleLogger } from "chat";
import { DefaultRestOptions } from "discord.js";

const env = process.env;
const FOR_LONG = 24 * 60 * 60 * 1000; // milliseconds
const logger = new ConsoleLogger("warn");

async function* deltas(question, signal) {
  const response = await fetch(`${env.MODEL_URL}/chat/completions`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({
      model: "emulated",
      messages: [{ role: "user", content: question }],
      max_tokens: 1024,
      stream: true,
    }),
    signal,
  });
  let rest = "";
  for await (const piece of response.body.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + piece).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data: {")) continue;
      const text = JSON.parse(line.slice("data: ".length)).choices[0]?.delta?.content;
      if (text) yield text;
    }
  }
}

function discord() {
  // The adapter has an option for the address of its own calls; its gateway client is discord.js,
  // which asks for the gateway's address at what its exported defaults name.
  DefaultRestOptions.api = env.DISCORD_API_URL.replace(/\/v\d+$/, "");
  return createDiscordAdapter({
    apiUrl: env.DISCORD_API_URL,
    applicationId: env.DISCORD_APPLICATION_ID,
    botToken: env.DISCORD_TOKEN,
    publicKey: "0".repeat(64), // for interactions over HTTP, of which there are none
    logger,
  });
}

function slack() {
  return createSlackAdapter({
    mode: "socket",
    appToken: env.SLACK_APP_TOKEN,
    botToken: env.SLACK_BOT_TOKEN,
    apiUrl: env.SLACK_API_URL,
    nativeStreaming: env.SLACK_STREAMS === "on",
    logger,
  });
}

const platform = process.argv[2];
const adapter = { discord, slack }[platform]();
const bot = new Chat({
  userName: "parley",
  adapters: { [platform]: adapter },
  state: createMemoryState(),
  // In one thread of Discord many people ask at once.
  concurrency: "concurrent",
  // Its own default is 500.
  ...(env.UPDATE_MS && { streamingUpdateIntervalMs: Number(env.UPDATE_MS) }),
  logger,
});
bot.onNewMention(async (thread, message) => {
  await thread.post(deltas(message.text, thread.signal));
});

await bot.initialize();
if (platform === "discord") {
  await adapter.startGatewayListener({ waitUntil: () => {} }, FOR_LONG);
}
