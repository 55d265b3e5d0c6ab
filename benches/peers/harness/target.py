"""The one target that all contestants call: started once, asked by the harness on its own port."""

import json
import urllib.request

from .processes import Child, Failed, run

PATIENCE = 10.0
CEILING_SECONDS = 3


class Target:
    def __init__(self, program):
        self.program = program
        self.child = Child([program, "serve"])
        self.port = int(self.child.line(PATIENCE))
        self.origin = f"http://127.0.0.1:{self.port}"

    def ceiling(self):
        """Requests a second that a trivial client gets answered, beside nothing else."""
        command = [self.program, "ceiling", self.port, CEILING_SECONDS]
        return float(run(command, seconds=CEILING_SECONDS + PATIENCE))

    def reset(self, jobs):
        """A new run of so many jobs."""
        self._ask(f"/reset/{jobs}", b"")

    def report(self):
        """How many requests, of how many different jobs, the first and the last of those by the monotonic clock."""
        return json.loads(self._ask("/report"))

    def stamp(self, job):
        """When a job was first requested, in nanoseconds of the monotonic clock; 0: not yet."""
        return int(self._ask(f"/stamp/{job}"))

    def processor(self):
        return self.child.processor()

    def _ask(self, path, body=None):
        try:
            with urllib.request.urlopen(self.origin + path, data=body, timeout=PATIENCE) as answer:
                return answer.read()
        except OSError as error:
            self.child.check()
            raise Failed(f"the target does not answer: {error}") from None

    def stop(self):
        self.child.stop()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
