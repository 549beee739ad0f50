# shellcheck shell=bash
# The runner on AWS, files to keep, and large requests. Points are those of the issue.

tests 1-image "pushed, pinned, kept, removed, checked" 'test(/runner_image|image_of_ours/)'
tests 2-definitions "three containers, each failure told apart" \
  'test(/aws::stop_reasons|task::|container_names|simulation::/)'
tests 3-stack "images of any kind, in the emulator's stack" 'test(/stack::container_images/)'
tests 4-patterns "checked, stay below the command's folder" 'test(/request::artifacts|a_request_for_files_is_checked/)'
tests 4-one-machine "host, Podman, Docker; timeout, cancel, prune" 'test(/e2e::(container_)?artifacts/)'
tests 4-signed "other bytes, length, path, hash are refused by S3" 'test(/contract::(artifacts|uploads)/)'
tests 4-token "its own attempt, while it is open" 'test(/uploads::(a_token|what_is_asked)/)'
tests 4-faults "429, 5xx, lost answers, TERM, kill" 'test(/uploads::an_upload|uploads::a_file_that_is_refused/)'
tests 4-stack "timeout, cancel, large and many, in the stack" 'test(/stack::container_artifacts/)'
tests 4-hostile-names "neither escape nor break" 'test(/hostile_names|no_link_is_followed|a_path_stays|has_the_form_of_a_batch/)'
tests 5-large-requests "256 KiB, in a stack and on one machine" \
  'test(/container_requests|a_request_as_large|too_large_altogether|with_its_count|a_token_opens_the_request/)'
tests 5-secrets "planted ones are found nowhere else" 'test(/secrecy/)'
tests 4-disk-full "told, the others are kept" 'test(/files_that_a_full_disk|files_that_are_lost_after/)'
tests 4-serve "addresses of local serve" 'test(/a_server_gives_files_out|an_address_opens_its_file/)'
long 4-large "1 GB and 10,000 files, in the stack" 'test(/a_gigabyte_and_as_many_files/)'
tests 6-price "at most 15 US\$ a million at full throughput" 'test(/priced::/)'
