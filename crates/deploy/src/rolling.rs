//! Updates a stack to another template: in one update, or with one more for each index that its
//! table gets or loses.
//!
//! Each run finds out from CloudFormation's template and DynamoDB's description what is deployed
//! already. So an interrupted run leaves nothing to remember: the next one plans the rest.

use crate::{
    Account,
    bucket::StackBucket,
    indexes::{IndexPlan, IndexStep, plan},
    install::outcome::{InstallError, StackChange},
    stack::{Setting, StackProgress, StackSettings, StackView, Stacks},
    table::Table,
    template::Template,
};

/// The update of one stack.
pub(crate) struct Rolling<'a, T> {
    stacks: &'a Stacks,
    bucket: &'a StackBucket,
    table: Table,
    tell: &'a T,
}

impl<'a, T: Fn(StackProgress)> Rolling<'a, T> {
    /// The update of the stack whose table has this name.
    pub(crate) fn of(
        account: &Account,
        bucket: &'a StackBucket,
        stacks: &'a Stacks,
        table: &str,
        tell: &'a T,
    ) -> Self {
        Self {
            stacks,
            bucket,
            table: Table::new(account, table),
            tell,
        }
    }

    /// Updates the stack to this template and these settings. Idempotent.
    ///
    /// New indexes are added first, to the deployed template, while the old functions keep working.
    /// Then everything else changes. The indexes that only the old functions read are dropped last.
    pub(crate) async fn update(
        &self,
        before: StackView,
        template: &Template,
        settings: &StackSettings,
    ) -> Result<(StackView, StackChange), InstallError> {
        let Some((deployed, plan)) = self.plan(template).await? else {
            let after = self.change(&before, template, settings).await?;
            return Ok(after.map_or((before, StackChange::Nothing), |after| {
                (after, StackChange::Changed)
            }));
        };
        let IndexPlan {
            adds,
            switch,
            drops,
        } = plan;
        let as_before = before
            .parameters
            .keys()
            .map(|name| (name.clone(), Setting::Previous))
            .collect();
        let stack = self
            .steps(before, &deployed, &as_before, "adding", &adds)
            .await?;
        if !drops.is_empty() {
            self.say("changing everything but the indexes that are to be dropped".into());
        }
        let switched = self
            .change(&stack, &template.with_table(&switch)?, settings)
            .await?;
        let is_changed = switched.is_some() || !adds.is_empty() || !drops.is_empty();
        let stack = self
            .steps(
                switched.unwrap_or(stack),
                template,
                settings,
                "dropping",
                &drops,
            )
            .await?;
        Ok((
            stack,
            if is_changed {
                StackChange::Changed
            } else {
                StackChange::Nothing
            },
        ))
    }

    /// Returns the deployed template and the steps from it to this one. Returns `None` if the table
    /// is as it should be, which is the usual case and takes one call.
    async fn plan(
        &self,
        template: &Template,
    ) -> Result<Option<(Template, IndexPlan)>, InstallError> {
        let wanted = template.table()?;
        // Without a table there are no steps to order. CloudFormation reports how the update ends.
        let Some(seen) = self.table.look().await? else {
            return Ok(None);
        };
        if seen.shape.is_same(&wanted) && seen.pending(&wanted, None).is_none() {
            return Ok(None);
        }
        // CloudFormation compares templates, so the deployed template counts and not the table
        // itself. An index that somebody added by hand is not in the template.
        let deployed = Template::whole(&self.stacks.template().await?)?;
        let plan = plan(&deployed.table()?, &wanted)?;
        self.table
            .settle(&deployed.table()?, None, self.tell)
            .await?;
        Ok(Some((deployed, plan)))
    }

    /// Makes one update for each step, and waits after each until the index is ready or gone.
    async fn steps(
        &self,
        mut stack: StackView,
        template: &Template,
        settings: &StackSettings,
        doing: &str,
        steps: &[IndexStep],
    ) -> Result<StackView, InstallError> {
        for (number, step) in (1..).zip(steps) {
            self.say(format!(
                "{doing} the index {} ({number} of {})",
                step.index,
                steps.len()
            ));
            let changed = self
                .change(&stack, &template.with_table(&step.after)?, settings)
                .await?;
            stack = changed.unwrap_or(stack);
            let dropped = Some(step.index.as_str()).filter(|name| step.after.index(name).is_none());
            self.table.settle(&step.after, dropped, self.tell).await?;
        }
        Ok(stack)
    }

    /// Makes one update. Returns `None` if there is nothing to change.
    async fn change(
        &self,
        stack: &StackView,
        template: &Template,
        settings: &StackSettings,
    ) -> Result<Option<StackView>, InstallError> {
        let url = self.bucket.put_template(template).await?;
        Ok(self.stacks.update(stack, &url, settings, self.tell).await?)
    }

    fn say(&self, text: String) {
        (self.tell)(StackProgress::Step(text));
    }
}
