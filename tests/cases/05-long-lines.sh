# shellcheck shell=bash disable=SC2016,SC2034,SC2154 # the run expands it; cases.sh sets and reads them
# Long lines (vector#14644). A log's line holds at most 256 KiB, so a longer one comes in parts (docs/reference.md, Limits), each a line. No
# character may be lost where it is cut.

# wants_text FILE WHAT: $said/out is FILE, but for line ends where a line of more than 256 KiB was cut.
wants_text() {
  cmp -s "$1" "$said/out" && return
  tr -d '\n' <"$1" >"$said/in.joined"
  tr -d '\n' <"$said/out" >"$said/out.joined"
  cmp -s "$said/in.joined" "$said/out.joined" ||
    fault "$2: $(cmp "$said/in.joined" "$said/out.joined" 2>&1 | sed 's/.*differ: //'), $(grep -o $'\xef\xbf\xbd' "$said/out" | wc -l) characters replaced"
  LC_ALL=C awk -v most=262144 'length($0) > most { print "a line of " length($0) " bytes"; exit }' "$said/out" >"$said/too-long"
  [ ! -s "$said/too-long" ] || fault "$2: $(cat "$said/too-long")"
  # Each line in as few parts as there can be.
  python3 - "$1" "$said/out" <<'END' || fault "$2: a line was put in, or cut where it need not be"
import sys

def parts(line):
    count, at = 1, 262144
    while at < len(line):
        while line[at] & 0xC0 == 0x80:
            at -= 1
        count, at = count + 1, at + 262144
    return count

wanted, got = (open(path, "rb").read().split(b"\n") for path in sys.argv[1:])
sys.exit(len(got) != sum(map(parts, wanted)))
END
}

# both FILE: through exec, and through logs.
both() {
  run exec --local --no-repo "cat $1"
  wants_code 0
  wants_text "$1" exec
  run --local logs
  wants_code 0
  wants_text "$1" logs
}

fresh
{ head -c 262143 /dev/zero | tr '\0' x; echo 'éand more'; echo next; } >"$W/in"
both "$W/in"
tell a "an é at the cut" "no character is lost"

fresh
python3 -c 'print("\u2603" * 100_000)' >"$W/in"
both "$W/in"
tell b "300 kB of snowmen" "no character is lost"

fresh
python3 -c 'print("ab\U0001f600" * 100_000 + "\n" + "\U0001f600" * 200_000, end="")' >"$W/in"
run exec --local --no-repo "cat $W/in"
# The last line gets an end.
echo >>"$W/in"
wants_code 0
wants_text "$W/in" exec
tell c "characters of four bytes, no line end" "no character is lost"

fresh
{ head -c 262144 /dev/zero | tr '\0' x; echo; echo next; } >"$W/in"
both "$W/in"
tell d "a line of exactly 256 KiB" "no line is put in"
