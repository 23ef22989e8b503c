//! A session without a server: every reply is canned. For what costs nothing but instructions.

use std::sync::Arc;

use bytes::BytesMut;
use postgres_protocol::IsNull;
use segue::session::{
    Event, Execute, LedgerAccess, LinkReady, Options, Parameters, Session, Statement,
};

use crate::Failure;

/// One parameter of bytes that are encoded already.
pub struct Bytes<'a>(pub &'a [u8]);

impl Parameters for Bytes<'_> {
    fn count(&self) -> usize {
        1
    }

    fn format(&self, _: usize) -> i16 {
        1
    }

    fn encode(
        &self,
        _: usize,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Send + Sync>> {
        out.extend_from_slice(self.0);
        Ok(IsNull::No)
    }
}

/// A session in a transaction that has executed its statement once, so that it is prepared.
pub struct Pure {
    session: Session,
    statement: Arc<Statement>,
    input: BytesMut,
}

/// BindComplete, CommandComplete, ReadyForQuery in a transaction.
const REPLY: &[u8] = b"2\0\0\0\x04C\0\0\0\x0fINSERT 0 1\0Z\0\0\0\x05T";
/// The first time: BEGIN's BindComplete and CommandComplete, ParseComplete and what Describe says.
const FIRST: &[u8] =
    b"2\0\0\0\x04C\0\0\0\x0aBEGIN\x001\0\0\0\x04t\0\0\0\x0a\0\x01\0\0\0\x11n\0\0\0\x04";
/// The same once the statement is prepared.
const BEGUN: &[u8] = b"2\0\0\0\x04C\0\0\0\x0aBEGIN\0";
const COMMITTED: &[u8] = b"2\0\0\0\x04C\0\0\0\x0bCOMMIT\0Z\0\0\0\x05I";

impl Pure {
    pub fn begin() -> Result<Self, Failure> {
        let options = Options {
            journal_bytes_max: 16 << 20,
            message_bytes_max: 1 << 30,
            statement_cache_size: 16,
            rotate_commits: 256,
            retry_conflicts: 0,
            writes: true,
            backup_acknowledges: false,
            reply_before_commit: false,
            ledger_required: false,
            reapply: false,
            files: false,
        };
        let statement = Statement::new(100, "INSERT INTO t VALUES ($1)", &[17], true)
            .ok_or("the statement cannot be made")?;
        let mut pure = Self {
            session: Session::new(options, 1),
            statement: Arc::new(statement),
            input: BytesMut::new(),
        };
        let link = LinkReady {
            timeline: 1,
            prepared: (0..5).collect(),
            ledger: LedgerAccess::None,
            ..LinkReady::default()
        };
        pure.session.handle_link_ready(link)?;
        pure.session.handle_sent();
        pure.session.begin(Default::default())?;
        pure.execute(b"first")?;
        pure.reply(FIRST)?;
        pure.answer()?;
        Ok(pure)
    }

    /// Commits, and begins the next transaction with its first statement.
    pub fn commit_and_begin(&mut self) -> Result<(), Failure> {
        self.session.commit(false)?;
        self.reply(COMMITTED)?;
        self.drain()?;
        self.session.begin(Default::default())?;
        self.execute(b"first")?;
        self.reply(BEGUN)?;
        self.answer()
    }

    /// What is measured: the statement is recorded and put on the wire.
    pub fn execute(&mut self, value: &[u8]) -> Result<(), Failure> {
        let request = Execute {
            statement: &self.statement,
            parameters: &Bytes(value),
            text_results: false,
            streamed: false,
        };
        Ok(self.session.execute(request)?)
    }

    /// The server's reply to it.
    pub fn answer(&mut self) -> Result<(), Failure> {
        self.reply(REPLY)?;
        self.drain()
    }

    /// Bytes that would be sent now.
    pub fn output(&self) -> usize {
        self.session.output_len()
    }

    fn reply(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.session.handle_sent();
        self.input.extend_from_slice(bytes);
        self.session.handle_input(&mut self.input).map_err(|error| error.to_string())?;
        Ok(())
    }

    fn drain(&mut self) -> Result<(), Failure> {
        let mut ready = false;
        while let Some(event) = self.session.poll_event() {
            match event {
                Event::Error(error) => return Err(error.into()),
                Event::Ready(_) => ready = true,
                _ => {}
            }
        }
        if ready { Ok(()) } else { Err("the canned reply did not end the request".into()) }
    }
}
