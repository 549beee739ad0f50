"""Runs the commands of documents: manual.py MYCLI DOCKER_HOST DOCUMENT… (tests/manual.sh calls it in the root of the repository).

A block's class is the word after its language: ```sh aws. One without a class is run, so that no new block is passed over.
"""

import fcntl
import os
import re
import select
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

CLASSES = {
    "": "run",
    "sample": "run, and what it prints may differ",
    "server": "run beside the commands that follow, to the document's end",
    "aws": "needs an AWS account",
    "host": "changes this machine, builds or downloads",
}
SHELL = {"sh", "bash", "console"}
OTHER = {"json", "yaml", "text"}
SECONDS = 60
# The descriptors that session.sh knows.
COMMANDS, CODES = 98, 99
# Nothing listens there, and without a region AWS is not asked: mycli gets no further than its arguments.
NOWHERE = "http://127.0.0.1:1"
ALONE = {
    "MYCLI_ENDPOINT": NOWHERE, "MYCLI_API_KEY": "sk_live_0", "AWS_ENDPOINT_URL": NOWHERE, "DOCKER_HOST": "unix:///nowhere",
}


class Command:
    def __init__(self, line, text):
        self.line, self.text, self.output = line, text, []
        told = re.search(r"#\s*exits (\d+)\s*$", text)
        self.code = int(told[1]) if told else 0


class Block:
    def __init__(self, line, language, word):
        self.line, self.language, self.word, self.lines = line, language, word, []

    def commands(self):
        """Its commands, each with what the document shows of its output."""
        commands, text, start = [], "", 0
        for number, line in enumerate(self.lines, self.line + 1):
            if self.language == "console" and not text:
                if not line.startswith("$ "):
                    if commands and line.strip():
                        commands[-1].output.append(line)
                    continue
                line = line[2:]
            start = start if text else number
            text += line + "\n"
            if not text.strip() or re.fullmatch(r"\s*#.*\s*", text):
                text = ""
            elif whole(text):
                commands.append(Command(start, text.rstrip("\n")))
                text = ""
        if text:
            commands.append(Command(start, text.rstrip("\n")))
        for command, after in zip(commands, commands[1:]):
            if after.text == "echo $?" and after.output:
                command.code = int(after.output[0])
        return commands


def whole(text):
    """Whether a shell would wait for another line. A line that is wrong anyway stays wrong, and comes to light when it is run."""
    if re.search(r"\\\n$", text):
        return False
    told = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True).stderr
    return not re.search("unexpected (end of file|EOF)|delimited by end-of-file", told)


def blocks(document):
    """The fenced blocks of a document."""
    block = fence = None
    with open(document, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            mark = re.match(r"\s*(`{3,}|~{3,})\s*(.*?)\s*$", line)
            if block and mark and mark[1].startswith(fence) and not mark[2]:
                yield block
                block = None
            elif block:
                block.lines.append(line.rstrip("\n"))
            elif mark:
                fence = mark[1]
                language, _, word = mark[2].partition(" ")
                block = Block(number, language, word.strip())
    if block:
        yield block


def spans(document):
    """The calls of mycli within a document's prose, as far as they name a subcommand."""
    with open(document, encoding="utf-8") as file:
        prose = re.sub(r"^ *```.*?^ *```", lambda block: "\n" * block[0].count("\n"), file.read(), flags=re.DOTALL | re.MULTILINE)
    for span in re.finditer(r"`([^`]+)`", prose):
        if "mycli " in span[1] and not re.search(r"\bmycli (-\S+ )*([A-Z]+|…)( |$)", span[1]):
            yield prose.count("\n", 0, span.start()) + 1, span[1].replace("\\|", "|")


def calls(text):
    """The words of each simple command in shell text; what they would expand to is not known."""
    lexer = shlex.shlex(text.replace("\\\n", " "), posix=True, punctuation_chars="();<>|&\n")
    lexer.whitespace = " \t"
    lexer.whitespace_split = True
    words = []
    for word in lexer:
        if set(word) <= set("();<>|&\n"):
            if set(word) & set("<>") and word != "\n":
                words.append(None)  # The name of a file follows.
                continue
            yield words
            words = []
        elif words and words[-1] is None:
            words.pop()
        elif words or not re.match(r"\w+=|do$|then$|export$", word):
            words.append(word)
    yield words


def shape(line):
    """A line of output without what is another one each time."""
    for pattern, name in (
        (r"\b(exec|sub)_[0-9A-Z]{26}\b", r"\1_ID"),
        (r"\b[0-9a-f]{32}\b", "HEX"),
        (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d\d:\d\d", "TIME"),
        (r"\b\d\d:\d\d:\d\d\.\d+\b", "TIME"),
        (r"\b\d+(\.\d+)? ?(ms|s|min|m|h|d)\b", "SPAN"),
        (r"\bby [\w-]+$", "by NAME"),
        (r"\b(x86_64|arm64)\b", "ARCH"),
        (r"\s+", " "),
    ):
        line = re.sub(pattern, name, line)
    return line.strip()


def missing(wanted, printed):
    """The first line that the document shows and the command did not print, after the ones before it."""
    rest = iter([shape(line) for line in printed])
    for line in wanted:
        # What the document elides with `…` may be anything.
        pattern = ".*".join(re.escape(part) for part in shape(line).split("…"))
        if line.strip() != "…" and not any(re.fullmatch(pattern, other) for other in rest):
            return line
    return None


class Session:
    """The shell of one document: what a command sets is there for the next one."""

    def __init__(self, runner, document, folder):
        self.runner, self.folder, self.count = runner, folder, 0
        self.environment = {
            "PATH": f"{runner.root}/bin:/usr/local/bin:/usr/bin:/bin", "HOME": f"{folder}/home", "LANG": "C.UTF-8", "W": folder,
            "DOCUMENT": document, "MANUAL": os.path.abspath("tests/manual"), "GIT_CONFIG_NOSYSTEM": "1", "GIT_ALLOW_PROTOCOL": "file",
        }
        if runner.engine:
            self.environment["DOCKER_HOST"] = runner.engine
        os.makedirs(f"{folder}/home")
        self.shell = None

    def start(self):
        """Unless it was: the shell, and the world around it."""
        if self.shell:
            return
        theirs, self.commands = os.pipe()
        self.codes, answers = os.pipe()
        os.dup2(theirs, COMMANDS)
        os.dup2(answers, CODES)
        with open(f"{self.folder}/session", "ab") as said:
            self.shell = subprocess.Popen(
                ["bash", "--norc", "--noprofile", f"{self.environment['MANUAL']}/session.sh"], env=self.environment, cwd=self.folder,
                stdin=subprocess.DEVNULL, stdout=said, stderr=said, pass_fds=(COMMANDS, CODES), start_new_session=True,
            )
        for end in (theirs, answers, COMMANDS, CODES):
            os.close(end)
        code, _ = self.run("true")
        if code != 0:
            sys.exit(f"manual.sh: the world could not be made: {read(f'{self.folder}/session')}")

    def run(self, text):
        """The exit code, None for one that was stopped, and the lines printed."""
        self.start()
        self.count += 1
        said = f"{self.folder}/said.{self.count}"
        os.write(self.commands, f"{said}\0{text}\0".encode())
        code = None
        if select.select([self.codes], [], [], SECONDS)[0]:
            answer = os.read(self.codes, 16)
            # Without an answer the command has ended the shell.
            code = int(answer) if answer else self.close()
        else:
            self.close()
        return code, read(said)

    def close(self):
        """Ends the shell, and gives its exit code."""
        if not self.shell:
            return None
        os.close(self.commands)
        os.close(self.codes)
        shell, self.shell = self.shell, None
        try:
            return shell.wait(timeout=2)
        except subprocess.TimeoutExpired:
            os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()
            return None


def read(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().splitlines()
    except FileNotFoundError:
        return []


class Runner:
    def __init__(self, built, engine):
        self.engine = engine
        self.root = tempfile.mkdtemp(prefix="mycli-manual.", dir="/tmp")
        os.mkdir(f"{self.root}/bin")
        # A copy stays the same while somebody builds.
        shutil.copy(built, f"{self.root}/bin/mycli")
        self.run_blocks = self.run_commands = self.only_taken = self.not_run = self.named = self.failed = 0

    def fail(self, place, text, why, printed=()):
        self.failed += 1
        print(f"FAIL {place}: {text.splitlines()[0] if text else ''}\n     {why}")
        printed = list(printed)
        for line in printed if len(printed) <= 10 else [*printed[:5], "…", *printed[-5:]]:
            print(f"     | {line}")

    def skip(self, place, text, why):
        self.not_run += 1
        print(f"SKIPPED {place}: {text.splitlines()[0]}  ({why})")

    def document(self, number, document):
        session = Session(self, document, f"{self.root}/{number}")
        for block in blocks(document):
            place = f"{document}:{block.line}"
            if block.language in OTHER:
                continue
            if block.language not in SHELL or block.word not in CLASSES:
                self.fail(place, "", f"'{block.language} {block.word}' is neither one of {sorted(SHELL | OTHER)} nor of {sorted(CLASSES)} after it")
                continue
            commands = block.commands()
            if not commands:
                self.fail(place, "", "there is no command in it")
            if block.word in ("aws", "host"):
                for command in commands:
                    self.take(session, f"{document}:{command.line}", command, CLASSES[block.word])
                continue
            self.run_blocks += 1
            for command in commands:
                place = f"{document}:{command.line}"
                if "--image" in command.text and not self.engine:
                    self.take(session, place, command, "needs a container engine")
                elif block.word == "server":
                    self.serve(session, place, command)
                else:
                    self.run(session, place, command, block.word == "sample")
        session.close()
        self.end_ours()
        for line, text in spans(document):
            self.name(f"{document}:{line}", text)

    def run(self, session, place, command, sample):
        self.run_commands += 1
        code, printed = session.run(command.text)
        if code is None:
            self.fail(place, command.text, f"was still running after {SECONDS} s", printed)
            self.end_ours()
        elif code != command.code:
            self.fail(place, command.text, f"exit code {code}, not {command.code}", printed)
        elif not sample:
            line = missing(command.output, printed)
            if line is not None:
                self.fail(place, command.text, f"did not print: {line.strip()}", printed)

    def serve(self, session, place, command):
        """Starts what stays: it has begun when it has printed something, and must then be there."""
        self.run_commands += 1
        ready = 'until [ -s "$said" ]; do kill -0 $! 2>/dev/null || break; sleep 0.1; done; sleep 0.2; kill -0 $!'
        code, printed = session.run(f"{{ {command.text}\n}} &\n{ready}")
        if code != 0:
            self.fail(place, command.text, "has ended, or printed nothing", printed)

    def calls(self, place, text):
        try:
            return list(calls(text))
        except ValueError as error:
            self.fail(place, text, str(error))
            return []

    def take(self, session, place, command, why):
        """Not run as it is: but mycli must take its arguments, and what it names in this repository must be there."""
        taken = 0
        for words in self.calls(place, command.text):
            if words[:1] == ["mycli"]:
                taken += 1
                problem, printed = self.refused(session, words)
            else:
                problem, printed = unknown(words), []
            if problem:
                self.fail(place, command.text, problem, printed)
        if taken:
            self.only_taken += 1
        else:
            self.skip(place, command.text, why)

    def refused(self, session, words):
        """Whether mycli does not take these arguments. It then exits with 2, and otherwise fails for want of a stack."""
        session.start()
        words = [f"{self.root}/bin/mycli", *words[1:]]
        try:
            done = subprocess.run(
                words, env=session.environment | ALONE, cwd=f"{session.folder}/project", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, text=True, timeout=SECONDS,
            )
        except subprocess.TimeoutExpired:
            return f"was still running after {SECONDS} s", []
        printed = done.stdout.splitlines()
        return (f"exit code {done.returncode}: not taken" if done.returncode in (2, 101) or done.returncode < 0 else None), printed

    def name(self, place, text):
        """A call in prose, whose arguments may be names for something: there must be such a subcommand with such flags."""
        for words in self.calls(place, text):
            if words[:1] == ["mycli"]:
                self.named += 1
                end = words.index("--") if "--" in words else len(words)
                asked = [f"{self.root}/bin/mycli", *words[1:end], "--help"]
                done = subprocess.run(asked, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS, check=False)
                if done.returncode != 0:
                    self.fail(place, text, "there is no such command", done.stderr.splitlines())

    def ours(self):
        """The processes that run our mycli, or have their home or working directory beneath ours."""
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                links = [os.readlink(f"/proc/{pid}/{link}") for link in ("exe", "cwd")]
                with open(f"/proc/{pid}/environ", "rb") as file:
                    homes = [entry for entry in file.read().split(b"\0") if entry.startswith(f"HOME={self.root}/".encode())]
            except OSError:
                continue
            if homes or any(link.startswith(f"{self.root}/") for link in links):
                yield int(pid)

    def end_ours(self):
        for attempt in range(100):
            left = list(self.ours())
            if not left:
                return
            for pid in left:
                try:
                    os.kill(pid, signal.SIGTERM if attempt == 0 else signal.SIGKILL)
                except ProcessLookupError:
                    pass
            time.sleep(0.1)


def unknown(words):
    """What of this repository a command names and is not there."""
    if words[:1] == ["just"]:
        with open("justfile", encoding="utf-8") as file:
            if len(words) > 1 and not re.search(rf"^{re.escape(words[1])}\b[^\n]*:", file.read(), re.MULTILINE):
                return f"the justfile has no recipe '{words[1]}'"
    if words and words[0].startswith("tests/") and not os.access(words[0], os.X_OK):
        return f"there is no {words[0]}"
    return None


def raise_loopback():
    """In a network of our own it is there, and down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours:
        try:
            flags = struct.unpack("16sh", fcntl.ioctl(ours, 0x8913, struct.pack("16sh", b"lo", 0)))[1]  # SIOCGIFFLAGS
            if not flags & 1:
                fcntl.ioctl(ours, 0x8914, struct.pack("16sh", b"lo", flags | 1))  # SIOCSIFFLAGS, IFF_UP
        except OSError as error:
            sys.exit(f"manual.sh: loopback cannot be used: {error}")


def main():
    built, engine, *documents = sys.argv[1:]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
    raise_loopback()
    runner = Runner(built, engine)
    try:
        for number, document in enumerate(documents):
            runner.document(number, document)
    finally:
        runner.end_ours()
        subprocess.run(["chmod", "-R", "u+rwX", runner.root], stderr=subprocess.DEVNULL, check=False)
        shutil.rmtree(runner.root, ignore_errors=True)
    print(
        f"{len(documents)} documents: {runner.run_blocks} blocks and {runner.run_commands} commands run, {runner.only_taken} only parsed, "
        f"{runner.named} named in prose, {runner.not_run} skipped, {runner.failed} failed"
    )
    sys.exit(1 if runner.failed else 0)


main()
