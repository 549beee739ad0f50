"""Posts each line of standard input to the address of the first argument, with the key of the second.

Prints for each the status, a space and the answer, on one line.
"""

import sys
import urllib.error
import urllib.request

address, key = sys.argv[1:]
for body in sys.stdin.buffer:
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    request = urllib.request.Request(address, body.rstrip(b"\n"), headers)
    try:
        answer = urllib.request.urlopen(request, timeout=20)
    except urllib.error.HTTPError as error:
        answer = error
    print(answer.status, answer.read().decode().replace("\n", " "), flush=True)
