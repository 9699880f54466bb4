"""A fake MCP server for tests of who gets through: answers any POST, after the argument `seconds` of a call, with an
empty result, and any GET with the text `open`; with a stream of events that does not end where a GET asks for one, and
where a call has the argument `stream`; `large` letters are in the result. Arguments: ADDRESS PORT LOG; a line of LOG for each request,
ending in `authorized` where it had that header."""

import http.server
import json
import socket
import sys
import time

address, port, log = sys.argv[1], int(sys.argv[2]), sys.argv[3]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def note(self, what):
        if "authorization" in self.headers:
            what += " authorized"
        with open(log, "a") as file:
            file.write(what + "\n")

    def reply(self, kind, body):
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def stream(self):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        told = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "begun"}}
        try:
            while True:
                self.wfile.write(("data: " + json.dumps(told) + "\n\n").encode())
                time.sleep(0.2)
        except OSError:
            self.close_connection = True

    def do_GET(self):
        self.note("GET " + self.path)
        if "event-stream" in self.headers.get("accept", ""):
            return self.stream()
        self.reply("text/plain", b"open")

    def do_POST(self):
        message = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.note("POST " + str(message.get("method")))
        arguments = message.get("params", {}).get("arguments", {})
        if arguments.get("stream"):
            return self.stream()
        time.sleep(arguments.get("seconds", 0))
        dial = arguments.get("dial")
        said = {"large": "x" * arguments["large"]} if "large" in arguments else {}
        if dial:
            try:
                socket.create_connection(tuple(dial), timeout=5)
                said = {"dialled": "OK"}
            except OSError as error:
                said = {"dialled": type(error).__name__}
        answer = {"jsonrpc": "2.0", "id": message.get("id"), "result": {"content": [{"type": "text", "text": json.dumps(said)}]}}
        self.reply("application/json", json.dumps(answer).encode())

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6 if ":" in address else socket.AF_INET

    def server_bind(self):
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


server = Server((address, port), Handler)
print(json.dumps({"ready": True}), flush=True)
server.serve_forever()
