// Signatures of AWS as its documentation describes them ("Create a signed AWS API request"), written without a look at
// what is tested. As an MCP server over standard streams, it asks for URLs signed with the keys of its environment; with
// the arguments `verify FILE`, it says of the requests in a file, as a server received them, what is wrong with them.
import { execFile } from "node:child_process";
import { createHash, createHmac } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { request } from "node:https";
import { posix } from "node:path";
import { createInterface } from "node:readline";

const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");
const hmac = (key, text) => createHmac("sha256", key).update(text).digest();
const encode = (text) =>
  encodeURIComponent(text).replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`);

// `request`: method, path with query, headers as pairs in lower case.
function signature(request, names, payload, time, [day, region, service], secret) {
  const [path, query = ""] = request.path.split("?");
  const once = (part) => encode(decodeURIComponent(part));
  // S3 reads a `+` in a path as a blank.
  const uri = service === "s3"
    ? path.replaceAll("+", "%20").split("/").map(once).join("/")
    : posix.normalize(path).split("/").map(encode).join("/");
  const parameters = query.split("&").filter(Boolean).map((part) => {
    const [name, value = ""] = part.split(/=(.*)/s);
    return `${once(name)}=${once(value)}`;
  });
  const values = (name) => request.headers.filter(([own]) => own === name)
    .map(([, value]) => value.trim().replace(/ +/g, " ")).join(",");
  const canonical = [
    request.method, uri, parameters.sort().join("&"),
    ...names.map((name) => `${name}:${values(name)}`), "", names.join(";"), payload,
  ].join("\n");
  const scope = [day, region, service, "aws4_request"];
  const text = ["AWS4-HMAC-SHA256", time, scope.join("/"), sha256(canonical)].join("\n");
  return hmac(scope.reduce(hmac, `AWS4${secret}`), text).toString("hex");
}

function fault(request, keys, now) {
  const headers = [...request.headers];
  if (!headers.some(([name]) => name === "host")) headers.push(["host", request.authority]);
  const all = (name) => headers.filter(([own]) => own.replaceAll("_", "-") === name).map(([, value]) => value);
  const shown = all("authorization");
  if (shown.length !== 1) return `${shown.length} signatures`;
  const form = /^AWS4-HMAC-SHA256 Credential=([^/]+)\/(\d{8})\/([^/]+)\/([^/]+)\/aws4_request, SignedHeaders=([^,]+), Signature=([0-9a-f]{64})$/;
  const [, id, day, region, service, listed, own] = form.exec(shown[0]) ?? [];
  const key = keys[id];
  if (key === undefined) return `signed by ${id}`;
  if (region !== "eu-central-1") return `of ${region}`;
  const names = listed.split(";");
  const due = headers.map(([name]) => name).filter((name) => /^(host|content-type|x-amz-.*)$/.test(name));
  for (const name of due) if (!names.includes(name)) return `${name} is not signed`;
  const [time] = all("x-amz-date");
  const at = Date.parse(time.replace(/^(....)(..)(..)T(..)(..)(..)Z$/, "$1-$2-$3T$4:$5:$6Z"));
  if (!(Math.abs(at - now) < 300_000) || !time.startsWith(day)) return `of ${time}`;
  const tokens = all("x-amz-security-token");
  if (JSON.stringify(tokens) !== JSON.stringify(key.token ? [key.token] : [])) return `${tokens.length} other tokens`;
  const [payload, ...more] = all("x-amz-content-sha256");
  if (more.length || payload !== (service === "s3" ? "UNSIGNED-PAYLOAD" : sha256(request.body))) return "another body";
  const expected = signature({ ...request, headers }, names, payload, time, [day, region, service], key.secret);
  return own === expected ? null : "another signature";
}

// Begins a body once it is asked for, says so in a file, and ends it when there is another.
function held(url, headers, place) {
  return new Promise((done) => {
    const sent = { ...headers, expect: "100-continue", "transfer-encoding": "chunked" };
    const asking = request(url, { method: "POST", headers: sent }, async (response) => {
      let text = "";
      for await (const part of response) text += part;
      done(`${response.statusCode} ${text}`);
    });
    asking.on("error", (error) => done(`failed ${error}`));
    asking.on("continue", () => {
      asking.write("x");
      writeFileSync(`${place}/begun`, "");
      const waits = setInterval(() => {
        if (existsSync(`${place}/end`)) asking.end(() => clearInterval(waits));
      }, 20);
    });
    asking.flushHeaders();
  });
}

async function ask({ url, method = "GET", headers = {}, body, bytes, streamed, service = "sqs", curl, place }) {
  const { AWS_ACCESS_KEY_ID: id, AWS_SECRET_ACCESS_KEY: secret } = process.env;
  if (curl) {
    const own = ["--silent", "--show-error", "--aws-sigv4", `aws:amz:eu-central-1:${service}`, "--user", `${id}:${secret}`];
    return new Promise((done) => execFile("curl", [...own, ...curl, url], (error, out) => done(`${error ?? 200} ${out}`)));
  }
  if (place) return held(url, headers, place);
  const text = bytes ? "x".repeat(bytes) : body;
  const { host, pathname, search } = new URL(url);
  const time = new Date().toISOString().replace(/[-:]|\.\d+/g, "");
  const day = time.slice(0, 8);
  const payload = sha256(text ?? "");
  const signed = { host, "x-amz-content-sha256": payload, "x-amz-date": time, "x-amz-security-token": "own-token" };
  const names = Object.keys(signed);
  const request = { method, path: pathname + search, headers: Object.entries(signed) };
  const own = signature(request, names, payload, time, [day, "eu-central-1", service], secret);
  delete signed.host;
  signed.authorization =
    `AWS4-HMAC-SHA256 Credential=${id}/${day}/eu-central-1/${service}/aws4_request, SignedHeaders=${names.join(";")}, Signature=${own}`;
  const stream = streamed && new ReadableStream({
    start(out) {
      const all = new TextEncoder().encode(text);
      for (let at = 0; at < all.length; at += 65536) out.enqueue(all.subarray(at, at + 65536));
      out.close();
    },
  });
  try {
    const sent = { method, headers: { ...signed, ...headers }, body: stream || text, duplex: "half" };
    const response = await fetch(url, sent);
    return `${response.status} ${await response.text()}`;
  } catch (error) {
    return `failed ${error.cause?.code ?? error}`;
  }
}

async function answer({ method, params }) {
  if (method === "initialize") {
    const serverInfo = { name: "signing", version: "1.0.0" };
    return { protocolVersion: params.protocolVersion, capabilities: { tools: {} }, serverInfo };
  }
  if (method === "tools/list") {
    return { tools: ["get", "set"].map((name) => ({ name, inputSchema: { type: "object" } })) };
  }
  return { content: [{ type: "text", text: await ask(params.arguments) }] };
}

if (process.argv[2] === "verify") {
  const { keys, requests } = JSON.parse(readFileSync(process.argv[3]));
  console.log(JSON.stringify(requests.map((request) => fault(request, keys, Date.now()))));
} else {
  for await (const line of createInterface({ input: process.stdin })) {
    const message = JSON.parse(line);
    if (message.id === undefined) continue;
    answer(message).then((result) => console.log(JSON.stringify({ jsonrpc: "2.0", id: message.id, result })));
  }
}
