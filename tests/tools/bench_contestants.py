"""The contestants of the bench, but for the line itself: what each of them is, as source text."""

from typing import Final

ORIGIN: Final = "https://line.example"
TOKEN: Final = "secret"
LEAST: Final = "stateless, two round trips"
SERVER: Final = ("python", "-m", "functions_framework", "--target=handler")
NODE: Final = ("node", "server.mjs")
PACKAGES: Final = ("express@5", "twilio", "@upstash/redis")

HELLO: Final = """
def handler(request):
    return "Hello, World!"
"""

STATELESS: Final = """
import os
from twilio.request_validator import RequestValidator
from twilio.twiml.voice_response import VoiceResponse

VALIDATOR = RequestValidator(os.environ["TWILIO_AUTH_TOKEN"])

def handler(request):
    url = os.environ["PUBLIC_URL"] + request.environ["RAW_URI"]
    if not VALIDATOR.validate(url, request.form, request.headers.get("X-Twilio-Signature", "")):
        return "forged", 403
    words = VoiceResponse()
    words.say("Thank you for calling. Goodbye.")
    return str(words), 200, {"Content-Type": "text/xml"}
"""

TRIPS: Final = """
import json
import os
import re
import socket
import threading
from urllib.parse import urlsplit
from twilio.request_validator import RequestValidator
from twilio.twiml.voice_response import VoiceResponse

VALIDATOR = RequestValidator(os.environ["TWILIO_AUTH_TOKEN"])
REDIS = urlsplit(os.environ["UPSTASH_REDIS_REST_URL"])
KEPT = threading.local()

def trip(*command):
    if not hasattr(KEPT, "redis"):
        KEPT.redis = socket.create_connection((REDIS.hostname, REDIS.port))
        KEPT.redis.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    body = json.dumps(command).encode()
    head = f"POST / HTTP/1.1\\r\\nUpstash-Encoding: base64\\r\\nContent-Length: {len(body)}"
    KEPT.redis.sendall(head.encode() + b"\\r\\n\\r\\n" + body)
    answer = b""
    while not (whole := re.match(rb"(?is).*?content-length: *([0-9]+).*?\\r\\n\\r\\n", answer)) or (
        len(answer) < whole.end() + int(whole[1])
    ):
        answer += KEPT.redis.recv(65536)

def handler(request):
    url = os.environ["PUBLIC_URL"] + request.environ["RAW_URI"]
    if not VALIDATOR.validate(url, request.form, request.headers.get("X-Twilio-Signature", "")):
        return "forged", 403
    key = "call:" + request.form["CallSid"]
    trip("MGET", key, key + ":2")
    trip("SET", key, "x" * 600, "NX", "GET", "EX", "86400")
    words = VoiceResponse()
    words.say("Thank you for calling. Goodbye.")
    return str(words), 200, {"Content-Type": "text/xml"}
"""

NAIVE: Final = """
import json
import os
from twilio.request_validator import RequestValidator
from twilio.twiml.voice_response import VoiceResponse
from upstash_redis import Redis

VALIDATOR = RequestValidator(os.environ["TWILIO_AUTH_TOKEN"])
REDIS = Redis.from_env()

def handler(request):
    url = os.environ["PUBLIC_URL"] + request.environ["RAW_URI"]
    if not VALIDATOR.validate(url, request.form, request.headers.get("X-Twilio-Signature", "")):
        return "forged", 403
    key = "call:" + request.form["CallSid"]
    call = json.loads(REDIS.get(key) or "[]")
    call.append(request.form.get("SpeechResult", ""))
    REDIS.set(key, json.dumps(call), ex=86400)
    words = VoiceResponse()
    words.say("Thank you for calling. Goodbye.")
    return str(words), 200, {"Content-Type": "text/xml"}
"""

SOURCES: Final = {"hello": HELLO, "stateless": STATELESS, LEAST: TRIPS, "naive": NAIVE}

EXPRESS: Final = """
import cluster from "node:cluster";
import express from "express";
import twilio from "twilio";
import { Redis } from "@upstash/redis";

if (cluster.isPrimary && process.env.WORKERS > 1) {
  for (let i = 0; i < process.env.WORKERS; i++) cluster.fork();
} else {
  const redis = Redis.fromEnv();
  const app = express();
  app.use(express.urlencoded({ extended: false }));
  app.use(async (request, response) => {
    const url = process.env.PUBLIC_URL + request.originalUrl;
    const signature = request.get("X-Twilio-Signature") ?? "";
    const token = process.env.TWILIO_AUTH_TOKEN;
    if (!twilio.validateRequest(token, signature, url, request.body)) {
      return response.status(403).send("forged");
    }
    const key = "call:" + request.body.CallSid;
    const call = (await redis.get(key)) ?? [];
    call.push(request.body.SpeechResult ?? "");
    await redis.set(key, JSON.stringify(call), { ex: 86400 });
    const words = new twilio.twiml.VoiceResponse();
    words.say("Thank you for calling. Goodbye.");
    response.type("text/xml").send(words.toString());
  });
  app.listen(process.env.PORT, process.env.HOST);
}
"""
