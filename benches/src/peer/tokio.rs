//! tokio-postgres on a current-thread runtime, as its documentation has it.

use std::time::Instant;

use tokio::runtime::{Builder, Runtime};
use tokio_postgres::{Client, NoTls, Statement};

use super::POINT;
use crate::Failure;
use crate::measure::{Contestant, Lap, Random};

/// One connection, and the runtime that drives it.
pub struct TokioPostgres {
    runtime: Runtime,
    client: Client,
    point: Statement,
}

impl TokioPostgres {
    pub fn connect(conninfo: &str) -> Result<Self, Failure> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (client, point) = runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(conninfo, NoTls).await?;
            // Its end is noticed by the client.
            tokio::spawn(async move { drop(connection.await) });
            let point = client.prepare(POINT).await?;
            Ok::<_, tokio_postgres::Error>((client, point))
        })?;
        Ok(Self { runtime, client, point })
    }
}

/// Takes turns with point SELECTs.
pub struct Point<'a> {
    pub peer: &'a TokioPostgres,
    pub count: u32,
    pub rows: u32,
}

impl Contestant for Point<'_> {
    fn name(&self) -> &str {
        "tokio-postgres"
    }

    fn lap(&mut self, seed: u64) -> Result<Lap, Failure> {
        let TokioPostgres { runtime, client, point } = self.peer;
        let mut random = Random(seed);
        let mut took = Vec::with_capacity(usize::try_from(self.count)?);
        runtime.block_on(async {
            let mut last = Instant::now();
            for _ in 0..self.count {
                let aid = 1 + random.below(self.rows);
                let row = client.query_one(point, &[&aid]).await?;
                let _: i32 = row.try_get(0)?;
                let now = Instant::now();
                took.push(u64::try_from(now.duration_since(last).as_nanos()).unwrap_or(u64::MAX));
                last = now;
            }
            Ok::<_, tokio_postgres::Error>(())
        })?;
        Ok(Lap::of(took))
    }
}
