//! Bringing a stack that stands to another template: in one update, or in one for each index that
//! its table gets or loses.
//!
//! What is deployed already is found out each time, from CloudFormation's template and DynamoDB's
//! description. So a run that was cut short leaves nothing to remember: the next one plans what is
//! left.

use crate::{
    Account,
    bucket::Bucket,
    indexes::{Plan, Step, plan},
    install::{Change, InstallError},
    stack::{Progress, Setting, Settings, StackView, Stacks},
    table::Table,
    template::Template,
};

/// The change of one stack.
pub(crate) struct Rolling<'a, T> {
    stacks: &'a Stacks,
    bucket: &'a Bucket,
    table: Table,
    tell: &'a T,
}

impl<'a, T: Fn(Progress)> Rolling<'a, T> {
    /// Of the stack with the table of this name.
    pub(crate) fn of(
        account: &Account,
        bucket: &'a Bucket,
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

    /// Changes it to this template and these settings. Idempotent.
    ///
    /// New indexes come first, under the template that is deployed: the old functions go on
    /// meanwhile. Then everything else. Then the indexes go that only the old functions read.
    pub(crate) async fn update(
        &self,
        before: StackView,
        template: &Template,
        settings: &Settings,
    ) -> Result<(StackView, Change), InstallError> {
        let Some((deployed, plan)) = self.plan(template).await? else {
            let after = self.change(&before, template, settings).await?;
            return Ok(after.map_or((before, Change::Nothing), |after| (after, Change::Changed)));
        };
        let Plan {
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
                Change::Changed
            } else {
                Change::Nothing
            },
        ))
    }

    /// The template that is deployed, and the steps from it to this one; `None` where the table is
    /// as it should be, which is the usual case and takes one call.
    async fn plan(&self, template: &Template) -> Result<Option<(Template, Plan)>, InstallError> {
        let wanted = template.table()?;
        // Without a table there is nothing to order. What CloudFormation makes of that is told by
        // CloudFormation.
        let Some(seen) = self.table.look().await? else {
            return Ok(None);
        };
        if seen.shape.is_same(&wanted) && seen.pending(&wanted, None).is_none() {
            return Ok(None);
        }
        // CloudFormation compares templates, so its template counts: an index that somebody made by
        // hand is no part of it.
        let deployed = Template::whole(&self.stacks.template().await?)?;
        let plan = plan(&deployed.table()?, &wanted)?;
        self.table
            .settle(&deployed.table()?, None, self.tell)
            .await?;
        Ok(Some((deployed, plan)))
    }

    /// One update for each step, and after each the wait until the index is ready or gone.
    async fn steps(
        &self,
        mut stack: StackView,
        template: &Template,
        settings: &Settings,
        doing: &str,
        steps: &[Step],
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

    /// One update; `None` if there is nothing to change.
    async fn change(
        &self,
        stack: &StackView,
        template: &Template,
        settings: &Settings,
    ) -> Result<Option<StackView>, InstallError> {
        let url = self.bucket.put_template(template).await?;
        Ok(self.stacks.update(stack, &url, settings, self.tell).await?)
    }

    fn say(&self, text: String) {
        (self.tell)(Progress::Step(text));
    }
}
