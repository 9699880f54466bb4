// An MCP server over standard streams whose tools ask for a URL with the key of its environment. Calls that say
// `together: N` ask when N of them are in flight, and answer when N of them have asked.
import { createInterface } from "node:readline";

const waiting = { begin: [], end: [] };

function together(phase, count) {
  return new Promise((go) => {
    waiting[phase].push(go);
    if (waiting[phase].length >= (count ?? 1)) for (const one of waiting[phase].splice(0)) one();
  });
}

async function ask(url, headers) {
  try {
    const own = headers ?? { authorization: `Bearer ${process.env.TOKEN}` };
    const response = await fetch(url, { headers: own, redirect: "follow" });
    return `${response.status} ${await response.text()}`;
  } catch (error) {
    return `failed ${error.cause?.code ?? error}`;
  }
}

async function call({ url, headers, together: count }) {
  await together("begin", count);
  const text = await ask(url, headers);
  await together("end", count);
  return text;
}

async function answer({ method, params }) {
  if (method === "initialize") {
    return {
      protocolVersion: params.protocolVersion,
      capabilities: { tools: {} },
      serverInfo: { name: "keyed", version: "1.0.0" },
    };
  }
  if (method === "tools/list") {
    const tool = (name) => ({ name, inputSchema: { type: "object" } });
    return { tools: ["get", "look", "set"].map(tool) };
  }
  const text = await call(params.arguments);
  return { content: [{ type: "text", text }], isError: /^5|^failed/.test(text) };
}

for await (const line of createInterface({ input: process.stdin })) {
  const message = JSON.parse(line);
  if (message.id === undefined) continue;
  answer(message).then((result) =>
    console.log(JSON.stringify({ jsonrpc: "2.0", id: message.id, result })));
}
