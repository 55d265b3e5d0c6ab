"""A shop that sends a receipt for each order, by a job: Python's standard library and SQLite.

Decides what an app has to do for its jobs: enqueue in its own transaction, verify who calls, and do each job once.
"""

import base64
import contextlib
import hashlib
import hmac
import json
import os
import sqlite3
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

DATABASE = os.environ.get("DATABASE", "turnwise.db")
KEY = base64.b64decode(os.environ["SIGNING_KEY"].strip().removeprefix("whsec_"), validate=True)
TOLERANCE_S = 300
BODY_BYTES_MAX = 256 * 1024

TABLES = """
CREATE TABLE IF NOT EXISTS stock (item TEXT PRIMARY KEY, pieces INTEGER NOT NULL CHECK (pieces >= 0));
CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, item TEXT NOT NULL, receipts INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS done (job TEXT PRIMARY KEY);
INSERT OR IGNORE INTO stock VALUES ('tea', 1), ('coffee', 1000);
"""


@contextlib.contextmanager
def transaction():
    """A connection in a transaction: committed at the end, rolled back by an exception."""
    with contextlib.closing(sqlite3.connect(DATABASE, timeout=5, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
        except BaseException:
            db.execute("ROLLBACK")
            raise
        db.execute("COMMIT")


def order(item):
    """Take an order. Its job exists exactly if the order does: one transaction holds both."""
    with transaction() as db:
        number = db.execute("INSERT INTO orders (item) VALUES (?)", [item]).lastrowid
        db.execute("INSERT INTO turnwise_jobs (url) VALUES (?)", [f"/jobs/receipt?order={number}"])
        # Fails when there is none left; then there is no order, and no job.
        db.execute("UPDATE stock SET pieces = pieces - 1 WHERE item = ?", [item])
    return number


def send_receipt(job, number):
    """Do a job, once: what was done and that it was done are written in one transaction."""
    with transaction() as db:
        if db.execute("INSERT OR IGNORE INTO done VALUES (?)", [job]).rowcount == 1:
            db.execute("UPDATE orders SET receipts = receipts + 1 WHERE id = ?", [number])


def is_from_turnwise(headers, body):
    """Whether whoever sent this knows the key (Standard Webhooks). The body is the bytes as they came."""
    sent, job, signatures = (headers.get(f"webhook-{name}", "") for name in ("timestamp", "id", "signature"))
    if not sent.isascii() or not sent.isdigit() or abs(time.time() - int(sent)) > TOLERANCE_S:
        return False
    digest = hmac.new(KEY, f"{job}.{sent}.".encode() + body, hashlib.sha256).digest()
    mine = b"v1," + base64.b64encode(digest)
    return any(hmac.compare_digest(mine, theirs.encode()) for theirs in signatures.split(" "))


def names(envelope, method, target):
    """Whether a signed envelope is about this very request: a query stands nowhere else where it is signed."""
    url = urllib.parse.urlsplit(envelope["url"])
    return envelope["method"] == method and target == url.path + (f"?{url.query}" if url.query else "")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        with transaction() as db:
            row = db.execute("SELECT item, receipts FROM orders WHERE id = ?", [self.path.rpartition("/")[2]]).fetchone()
        self.answer(404, "no such order") if row is None else self.answer(200, {"item": row[0], "receipts": row[1]})

    def do_POST(self):
        length = self.headers.get("content-length", "")
        if not length.isdigit() or int(length) > BODY_BYTES_MAX:
            self.close_connection = True
            return self.answer(413, "a body of a known length, please")
        body = self.rfile.read(int(length))
        url = urllib.parse.urlsplit(self.path)
        if url.path == "/orders":
            try:
                return self.answer(201, {"order": order(json.loads(body)["item"])})
            except sqlite3.IntegrityError:
                return self.answer(409, "there is none left")
        if not is_from_turnwise(self.headers, body) or not names(json.loads(body), self.command, self.path):
            return self.answer(401, "this is not from a node that knows the key")
        if url.path == "/jobs/receipt":
            # The id that is signed: idempotency-key says the same, but whoever repeats a call may change it.
            send_receipt(self.headers["webhook-id"], urllib.parse.parse_qs(url.query)["order"][0])
            return self.answer(200, "sent")
        # Such a job will never succeed: it is not tried again.
        return self.answer(410, "no such job")

    def answer(self, status, said):
        body = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    with contextlib.closing(sqlite3.connect(DATABASE, timeout=5)) as database:
        database.executescript(TABLES)
    server = ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "8080"))), Handler)
    print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
