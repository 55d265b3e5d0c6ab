"""Programs that the harness starts: each in a group of its own, each ended with it, none for longer than it was given."""

import ctypes
import os
import signal
import subprocess
import threading
import time
from collections import deque
from pathlib import Path

# How long a program may take to end by itself when it is told to, in seconds.
GRACE = 5.0
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


class Failed(Exception):
    """A program did not do what it was started for: its name, how it ended, its last words."""


def run(command, *, seconds, env=None, cwd=None, log=None, user=None):
    """Run a program to its end, which must be a good one within so many seconds: what it printed.

    What it says beside that goes to the file `log`, if there is one.
    """
    child = Child(command, env=env, cwd=cwd, user=user, words=log)
    try:
        return child.finish(seconds)
    finally:
        child.stop()


class Child:
    """A running program. Its lines are read as they come, so that it never waits for its reader."""

    def __init__(self, command, *, env=None, cwd=None, user=None, words=None, death=signal.SIGKILL, keep=50_000):
        self.name = Path(str(command[0])).name
        self.lines = deque(maxlen=keep)
        self.words = deque(maxlen=40)
        self.log = open(words, "a", encoding="utf-8") if words else None
        identity = {} if user is None else {"user": user[0], "group": user[1], "extra_groups": []}
        self.process = subprocess.Popen(
            [str(part) for part in command],
            env=env,
            cwd=cwd,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            bufsize=1,
            start_new_session=True,
            # It ends with the harness, however that ends.
            preexec_fn=lambda: _LIBC.prctl(_PR_SET_PDEATHSIG, death),
            **identity,
        )
        self.arrived = threading.Condition()
        self.readers = [
            threading.Thread(target=self._read, args=(self.process.stdout, self.lines), daemon=True),
            threading.Thread(target=self._read, args=(self.process.stderr, self.words), daemon=True),
        ]
        for reader in self.readers:
            reader.start()

    @property
    def pid(self):
        return self.process.pid

    def _read(self, stream, lines):
        for line in stream:
            with self.arrived:
                lines.append(line.rstrip("\n"))
                if self.log and lines is self.words:
                    self.log.write(line)
                    self.log.flush()
                self.arrived.notify_all()

    def line(self, seconds):
        """The next line that it prints."""
        end = time.monotonic() + seconds
        with self.arrived:
            while not self.lines:
                self.check()
                left = end - time.monotonic()
                if left <= 0:
                    raise Failed(f"{self.name} printed nothing for {seconds:.0f} s; {self.last_words()}")
                self.arrived.wait(min(left, 0.2))
            return self.lines.popleft()

    def say(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def check(self):
        """It must be running."""
        if (code := self.process.poll()) is not None and not self.lines:
            raise Failed(f"{self.name} ended with {code}; {self.last_words()}")

    def finish(self, seconds):
        """Wait for its good end."""
        self.process.stdin.close()
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failed(f"{self.name} took more than {seconds:.0f} s; {self.last_words()}") from None
        for reader in self.readers:
            reader.join(GRACE)
        if code != 0:
            raise Failed(f"{self.name} ended with {code}; {self.last_words()}")
        return "\n".join(self.lines)

    def last_words(self):
        return "its last words: " + (" / ".join(list(self.words)[-5:]) or "none")

    def stop(self, ask=signal.SIGTERM):
        """End it and all that it started."""
        if self.process.poll() is None:
            self._signal(ask)
            try:
                self.process.wait(GRACE)
            except subprocess.TimeoutExpired:
                pass
        # What it started may still be there.
        self._signal(signal.SIGKILL)
        self.process.wait()
        for reader in self.readers:
            reader.join(GRACE)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            try:
                stream.close()
            except OSError:
                pass
        if self.log:
            self.log.close()
            self.log = None

    def _signal(self, what):
        try:
            os.killpg(self.process.pid, what)
        except ProcessLookupError:
            pass

    def processor(self):
        """The processor time that it has used, in seconds."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
