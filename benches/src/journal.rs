//! What it costs to keep a statement of 1 KiB in the journal: the session's `execute()`, without any
//! I/O, against the bare encoding of the same messages by `postgres-protocol`.
//!
//! Whether it allocates is a test: `cargo test -p segue-bench --test journal_allocations`.

use std::hint::black_box;
use std::time::Instant;

use bytes::BytesMut;
use postgres_protocol::IsNull;
use postgres_protocol::message::frontend;
use segue_bench::pure::Pure;

use crate::measure::{Lap, Spread};
use crate::report::{Report, Target, micros};
use crate::{Context, Failure};

const VALUE: [u8; 1024] = [7; 1024];
/// Statements of one transaction, and of one batch.
const COUNT: u32 = 1000;

pub fn run(context: &Context, report: &mut Report) -> Result<(), Failure> {
    let mut pure = Pure::begin()?;
    let (mut total, mut bare, mut journalling) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=context.rounds(30) {
        let ours = recorded(&mut pure)?;
        let theirs = encoded()?;
        if round > 0 {
            total.push(ours.p50_ns);
            bare.push(theirs.p50_ns);
            journalling.push(ours.p50_ns - theirs.p50_ns);
        }
    }
    let total = Spread::of(total);
    let bare = micros(Spread::of(bare).median);
    report.value(
        "journal",
        "a statement of 1 KiB: execute() less bare encoding".to_owned(),
        Spread::of(journalling),
        "ns",
        Target::AtMost(200.0),
    );
    let what = format!("the same, whole execute() (bare encoding {bare})");
    report.value("journal", what, total, "ns", Target::None);
    Ok(())
}

fn recorded(pure: &mut Pure) -> Result<Lap, Failure> {
    let mut took = Vec::with_capacity(usize::try_from(COUNT)?);
    for _ in 0..COUNT {
        let start = Instant::now();
        pure.execute(black_box(&VALUE))?;
        took.push(u64::try_from(start.elapsed().as_nanos())?);
        black_box(pure.output());
        pure.answer()?;
    }
    pure.commit_and_begin()?;
    Ok(Lap::of(took))
}

fn encoded() -> Result<Lap, Failure> {
    let mut out = BytesMut::with_capacity(2048);
    let mut took = Vec::with_capacity(usize::try_from(COUNT)?);
    for _ in 0..COUNT {
        let start = Instant::now();
        let bound = frontend::bind(
            "",
            "segue_100",
            [1],
            [black_box(&VALUE)],
            |value, out| {
                out.extend_from_slice(value);
                Ok(IsNull::No)
            },
            [1],
            &mut out,
        );
        frontend::execute("", 0, &mut out)?;
        frontend::sync(&mut out);
        took.push(u64::try_from(start.elapsed().as_nanos())?);
        bound.map_err(|_| "the value cannot be encoded")?;
        black_box(&out);
        out.clear();
    }
    Ok(Lap::of(took))
}
