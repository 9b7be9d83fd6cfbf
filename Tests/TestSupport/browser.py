"""Opens a page in a real Chromium, waits until an expression is true in it, and prints the document.

browser.py SECONDS URL EXPRESSION CHROMIUM-ARGUMENT…
What the page writes to its console goes to standard error, a line each, after CONSOLE.
"""
import json
import os
import subprocess
import sys
import threading

seconds, url, expression = float(sys.argv[1]), sys.argv[2], sys.argv[3]
to_browser, from_browser = os.pipe(), os.pipe()


def descriptors():
    # The protocol's pipe: Chromium reads 3 and writes 4.
    ends = os.dup(to_browser[0]), os.dup(from_browser[1])
    os.dup2(ends[0], 3)
    os.dup2(ends[1], 4)


for end in (to_browser[0], from_browser[1]):
    os.set_inheritable(end, True)
process = subprocess.Popen(
    ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", *sys.argv[4:], "about:blank"],
    preexec_fn=descriptors, close_fds=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL)
os.close(to_browser[0])
os.close(from_browser[1])
late = threading.Timer(seconds, process.kill)
late.start()
reader = os.fdopen(from_browser[0], "rb")
pending = b""
number = 0


def message():
    global pending
    while b"\0" not in pending:
        piece = reader.read1(65536)
        if not piece:
            sys.exit(f"the browser has gone, or {expression} was not true within {seconds} s")
        pending += piece
    text, pending = pending.split(b"\0", 1)
    found = json.loads(text)
    if found.get("method") in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
        print("CONSOLE", json.dumps(found["params"]), file=sys.stderr)
    return found


def ask(method, session=None, **parameters):
    global number
    number += 1
    request = {"id": number, "method": method, "params": parameters}
    if session:
        request["sessionId"] = session
    os.write(to_browser[1], json.dumps(request).encode() + b"\0")
    while True:
        found = message()
        if found.get("id") == number:
            if "error" in found:
                sys.exit(f"{method}: {found['error']}")
            return found["result"]


target = ask("Target.createTarget", url="about:blank")["targetId"]
session = ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
for domain in ("Page", "Runtime", "Log"):
    ask(f"{domain}.enable", session)
ask("Page.navigate", session, url=url)
while message().get("method") != "Page.loadEventFired":
    pass
waiting = f"""new Promise(done => {{
  const look = () => ({expression}) && done(document.documentElement.outerHTML);
  new MutationObserver(look).observe(document, {{attributes: true, childList: true, subtree: true}});
  look();
}})"""
answer = ask("Runtime.evaluate", session, expression=waiting, awaitPromise=True, returnByValue=True)
print("<!DOCTYPE html>" + answer["result"]["value"])
late.cancel()
process.kill()
process.wait()
