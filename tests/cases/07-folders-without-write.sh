# shellcheck shell=bash disable=SC2016,SC2034,SC2154 # the run expands it; cases.sh sets and reads them
# Folders that cannot be removed as they are (go#27161), not as root: Go's module cache is made like that.
not_as_root

# How many files the runs have left in their private folders. Counted by whoever runs this, who may look into all of them if that is root.
files_left() {
  { find "$H/.mycli/local/tasks" -mindepth 1 2>/dev/null || true; } | wc -l
}

# check LETTER NAME COMMAND [ARG…]: nothing of the run's private folders is left; or it is said once, and `prune` removes it.
check() {
  local letter=$1 name=$2 left
  fresh
  run exec --local --no-repo "${@:4}" "$3"
  wants_run "${@:4}"
  left=$(files_left)
  if [ "$left" -gt 0 ]; then
    [ "$(grep -ciE 'remove|left' "$said/err")" -eq 1 ] || fault "$left files stay, unsaid (code $code: $(short "$said/err" 80))"
    run --local history
    wants_none 'remove'
    run local prune --older-than 0s
    left=$(files_left)
    [ "$left" -eq 0 ] || fault "after \`local prune\` $left files are left ($(short "$said/err" 80))"
  fi
  tell "$letter" "$name" "gone"
}

check a "a folder without w" 'mkdir -p go/m; echo x > go/m/f; chmod -R a-w go'
check b "a folder without any right" 'mkdir -p a/b/c; echo x > a/b/c/f; chmod 0 a/b/c a/b'
check c "the private folder itself" 'mkdir m; echo x > m/f; chmod a-w m .'
check d "the folder for temporary files" 'mkdir "$TMPDIR/m"; echo x > "$TMPDIR/m/f"; chmod -R a-w "$TMPDIR"'
check e "after a timeout" 'mkdir m; echo x > m/f; chmod a-w m .; sleep 20' --timeout 1
check f "links that lead nowhere" 'ln -s /nowhere e; mkdir m; ln -s ../m m/self; mkfifo m/p; chmod a-w m'

fresh
repository "$dir/r.git"
run exec --local --repo "$dir/r.git" 'chmod -R a-w .; chmod a-w ..'
wants_run
[ "$(files_left)" -eq 0 ] || fault "$(files_left) files stay of a clone"
tell g "a clone" "gone"

fresh
serve
run_there exec --no-repo 'mkdir -p go/m; echo x > go/m/f; chmod -R a-w go'
wants_run
stop_serving
[ "$(files_left)" -eq 0 ] || fault "$(files_left) files stay"
tell h "a run of a server" "gone"

fresh
mkdir "$W/mine"
echo kept >"$W/mine/f"
chown -R "$nobody:$nobody" "$W/mine" 2>/dev/null || true
chmod 555 "$W/mine"
run exec --local --no-repo "mkdir m; ln -s $W/mine m/mine; chmod a-w m"
[ -f "$W/mine/f" ] || fault "what a link led to is gone"
[ "$(stat -c %a "$W/mine")" = 555 ] || fault "what a link leads to has mode $(stat -c %a "$W/mine")"
tell i "what a link leads to" "is as it was"
