# shellcheck shell=bash
# Records that outlive a release, errors that say what to do, submitters with an identity.

tests bad-record-sqlite "one row that cannot be read stops nothing but itself" \
  'test(/contract::local::spoilt|e2e::unreadable/)'
tests bad-record-dynamodb "the same of an item" 'test(/contract::dynamo::spoilt/)'
tests bad-record-handlers "launcher, sweep and announcements go on" 'test(/unreadable/) & not test(/^e2e|container/)'
tests store-of-80dc43a "nine statuses load, list, finish, rerun" 'test(/^fixtures::local/)'
tests table-of-80dc43a "nine statuses load and list" 'test(/^fixtures::dynamo/)'
tests forms-of-80dc43a "messages, markers, definitions, template" 'test(/^fixtures::forms|key_schema|80dc43a/)'
tests denied-invalid-corrupt "different, true words, and no retry" 'test(/words_of_failures|refused_by/)'
tests identity "a re-made key inherits nothing, a rotated one all" 'test(/identity::/)'
tests rerun "copied and checked on the server" 'test(/rerun/) & not test(/container/)'
tests forget "stopped, removed, its lock free" 'test(/forget/) & not test(/container/)'

tests write-units "a run's own writes within the bounds of before" 'test(/dynamo_cost/)'

# Long: each from some minutes to an hour.
command_says upgrade "each run ended once, over two releases" '[0-9]+ runs over two releases.*' just upgrade
command_says simulation "no rule broken in 10,000 seeds" '[0-9,]+ tasks[^.]*' just simulate 10000
command_says mutations "every one is caught" 'caught +[a-z-]+ .*' just mutants
command_says model-figures "as before (BENCHMARKS.md)" '[0-9.]+ × ideal.*|[0-9.]+ write units.*' \
  just bench throttle filled requests
