//! AWS's list prices in us-east-1 for all but Fargate itself, and bills made of them.

use std::fmt::Write as _;

const MILLION: f64 = 1e6;
const GIGABYTE: f64 = 1e9;

/// A price in us-east-1.
#[derive(Clone, Copy, Debug)]
pub struct Price {
    dollars: f64,
    /// The number of units, requests, gigabyte-seconds or bytes that the dollars pay for.
    per: f64,
    source: &'static str,
}

impl Price {
    /// A price that is in AWS-FACTS.
    const fn known(dollars: f64, per: f64) -> Self {
        Self {
            dollars,
            per,
            source: "AWS-FACTS §6",
        }
    }

    /// A price from memory, not looked up.
    const fn remembered(dollars: f64, per: f64) -> Self {
        Self {
            dollars,
            per,
            source: "from memory",
        }
    }
}

/// DynamoDB's write units, on demand.
pub const WRITES: Price = Price::known(0.625, MILLION);
/// DynamoDB's read units, on demand.
pub const READS: Price = Price::known(0.125, MILLION);
/// Requests of SQS.
pub const SQS: Price = Price::remembered(0.40, MILLION);
/// Invocations of Lambda.
pub const LAMBDA: Price = Price::remembered(0.20, MILLION);
/// Gigabyte-seconds of Lambda on arm64.
pub const LAMBDA_TIME: Price = Price::remembered(13.3334, MILLION);
/// Requests of a REST API.
pub const GATEWAY: Price = Price::remembered(3.50, MILLION);
/// Events that are put on a bus.
pub const EVENTS: Price = Price::remembered(1.00, MILLION);
/// Bytes that CloudWatch Logs takes in. A week of storage adds a hundredth.
pub const LOGS: Price = Price::remembered(0.50, GIGABYTE);
/// Bytes that are kept for the 90 days of a record, with point-in-time recovery: $0.25 and $0.20 a
/// month.
pub const STORAGE: Price = Price::remembered(3.0 * 0.45, GIGABYTE);
/// PUT requests of S3, parts of large files included.
pub const S3_WRITES: Price = Price::remembered(5.00, MILLION);
/// GET requests of S3.
pub const S3_READS: Price = Price::remembered(0.40, MILLION);
/// Bytes that S3 keeps for the 30 days of a file.
pub const S3_STORAGE: Price = Price::remembered(0.023, GIGABYTE);

/// The bytes that CloudWatch Logs adds to each event's size (API reference, `PutLogEvents`).
pub const LOG_EVENT_OVERHEAD: f64 = 26.0;

/// A bill as a table, and its sum in US$ for a million of `runs`. Each item is a name, how many
/// there were for all runs, and the price.
#[must_use]
pub fn bill(items: &[(&str, f64, Price)], runs: f64) -> (String, f64) {
    let mut table = String::from(
        "| | a run | US$ | for a | price | US$ a million runs |\n|---|---|---|---|---|---|\n",
    );
    let mut sum = 0.0;
    for (name, count, price) in items {
        let Price {
            dollars,
            per,
            source,
        } = price;
        // An empty sum is a negative zero.
        let count = count / runs + 0.0;
        let is_bytes = per.total_cmp(&GIGABYTE).is_eq();
        let cost = count / per * dollars * MILLION;
        sum += cost;
        let unit = if is_bytes { "GB" } else { "million" };
        let _infallible = writeln!(
            table,
            "| {name} | {} | {dollars:.3} | {unit} | {source} | {cost:.2} |",
            figure(count)
        );
    }
    let _infallible = writeln!(table, "| **together** | | | | | **{sum:.2}** |");
    (table, sum)
}

fn figure(count: f64) -> String {
    if count >= 100.0 {
        format!("{count:.0}")
    } else {
        format!("{count:.3}")
    }
}
