#!/bin/sh
# Plans this repository's Terraform on Fargate, and exits with 0 if nothing would change, 2 if something would, and another code if it failed.
#
#   AWS_REGION=eu-west-1 ./plan.sh prod
#
# The stage is the name of a Terraform workspace that exists. Needs jq.
#
# --lock: of all runs with the lock `terraform-prod`, one at a time, whoever starts them. Use the same lock for apply. Terraform's own lock of the
#   state stays on; this one makes runs wait in order, where Terraform's makes them fail.
# --task-role: the IAM role that Terraform works with. It is under the stack's path and trusts ecs-tasks.amazonaws.com (README.md).
# --retry-on spot: a plan may be made twice, so Spot is good enough. For apply, take --on-demand and no retry: a Spot interruption in the middle of
#   it would leave the state locked.
set -eu

stage=${1:?give a stage, as in: plan.sh prod}
region=${AWS_REGION:?set AWS_REGION}
record=$(mktemp)
trap 'rm -f "$record"' EXIT

code=0
# With -o json the log is on standard error, and the record on standard output.
mycli exec -o json \
  --image hashicorp/terraform:1.14 --lock "terraform-$stage" --task-role terraform \
  --spot --retry-on spot --timeout 20m --name "plan-$stage" \
  -e TF_IN_AUTOMATION=1 -e AWS_REGION="$region" -e TF_WORKSPACE="$stage" \
  'terraform init -input=false -no-color && terraform plan -input=false -no-color -lock-timeout=60s -detailed-exitcode' \
  >"$record" || code=$?

# Both `terraform plan -detailed-exitcode` and a wrong use of mycli exit with 2. Only the first has a record.
if [ ! -s "$record" ]; then
  echo "plan.sh: mycli did not run the plan" >&2
  [ "$code" -ne 2 ] || code=125
elif [ "$code" -eq 2 ]; then
  echo "plan.sh: there are changes; see the log of $(jq -r .execution_id "$record")" >&2
fi
exit "$code"
