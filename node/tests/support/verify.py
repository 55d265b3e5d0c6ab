"""Whether requests were signed by whoever knows a key: Standard Webhooks, with the standard library alone.

Reads one JSON object a line from standard input: key, id, timestamp, signature (the header), body (base64), now (seconds
since the Unix epoch). Writes a line for each: "yes", or why not.
"""

import base64
import hashlib
import hmac
import json
import sys

TOLERANCE_S = 300


def refusal(key, headers, body, now):
    """Why a request is not to be trusted; None when it is. The body is the bytes that came, before anything parses them."""
    try:
        seconds = int(headers["webhook-timestamp"])
    except ValueError:
        return "its timestamp is no number"
    if abs(now - seconds) > TOLERANCE_S:
        return "its timestamp is too far from this clock"
    secret = base64.b64decode(key.removeprefix("whsec_"), validate=True)
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    mine = base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
    for signature in headers["webhook-signature"].split(" "):
        scheme, _, value = signature.partition(",")
        if scheme == "v1" and hmac.compare_digest(value, mine):
            return None
    return "no signature is by this key"


for line in sys.stdin:
    asked = json.loads(line)
    sent = {f"webhook-{name}": asked[name] for name in ("id", "timestamp", "signature")}
    print(refusal(asked["key"], sent, base64.b64decode(asked["body"]), asked["now"]) or "yes", flush=True)
