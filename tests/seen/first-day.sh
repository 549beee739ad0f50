# shellcheck shell=bash
# The first day: a real account, a stranger's input. Points are those of the issue.

tests 1-credentials "go to their hosts only" \
  'test(/domain::git|git::tests|a_token_is_shown_to_its_own_hosts|hosts_are_for_credentials|a_request_s_proxies_loader/)'
tests 2-service-linked-role "made first, and the stack tried again" 'test(/service_linked_role/)'
tests 3-glibc "a newer one than Lambda has is refused" 'test(/newer_glibc/)'
tests 4-followers "200 on 10 and 25 reads a second" 'test(/^followers::|whoever_is_throttled/)'
tests 5-wrong-keys "refused without bcrypt" 'test(/^flood::/)'
tests 6-log-role "kept, made, or taken along" 'test(/first_day::.*log_role/)'
tests 7-zones "asked for; those without Fargate left out" 'test(/zones::tests|zones_of_its_subnets/)'
tests 8-causes "each stop reason told, retried where right" 'test(/^aws::stop_reasons/)'
tests 9-markers "from tasks' streams alone, both ends seen" \
  'test(/only_those_of_its_task|lines_of_no_task|after_the_end_of_stderr|the_exit_code_is_the_commands_own/)'
tests 9-foreign-writers "told, with the mend; administrators apart" 'test(/foreign_writers|^log_writers::/)'
tests 10-hot-key "10,000 lines on one index key" 'test(/^hot_key::/)'
tests 11-set-up "DNS, 5xx, 429 tried again; 401, 404 not" 'test(/^runner::reach/)'
tests 12-policies "actions and resources that AWS has" 'test(/policies_are_what|who_looks_at_policies/)'
tests 12-init-policy "what CloudFormation and the commands take" 'test(/init_polic|permissions::/)'
tests 12-template "boundary, key and topic reach all" 'test(/a_boundary_a_key_and_a_topic|every_dead_letter_rings/)'
tests 12-history "protected, and taken up by the next init" 'test(/deploy::life::.*(history|table_of_somebody)/)'
tests 12-regions "share no role; short ARNs are told" 'test(/first_day::(roles_for_runs|an_account_with_short)/)'
tests 12-tags "tell stack, submitter and group" 'test(/a_task_is_tagged|a_task_is_started_exactly/)'
tests 12-dead-letters "hold no variables" 'test(/no_event_of_a_task_becomes/)'
tests 13-emulator "the whole stack on one machine" 'test(/^stack::/)'
tests 16-cancel-group "10,000 by one request" 'test(/cancelled_by_one_request|groups_mark/)'
tests 16-rerun-group "500 by one request" 'test(/^rerun::|run_again_by_one_request|runs_again_what_failed|groups_rerun/)'

command_says cases "CASES as a new user types them" '[0-9]+ passed.*' just cases
