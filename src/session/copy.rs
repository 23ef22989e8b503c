//! The data of COPY FROM STDIN, piece by piece, and its end.

use postgres_protocol::message::frontend;

use super::request::NO_LEDGER;
use super::unit::{CopyIn, Steps};
use super::{Session, internals};
use crate::error::{Error, ErrorKind, Result};
use crate::mutation::{self, Mutation};

impl Session {
    /// Sends data of COPY FROM STDIN. What is given before it was asked for ([`Event::CopyIn`](super::Event::CopyIn))
    /// may have to wait, and is kept meanwhile, however much it is.
    pub fn copy_data(&mut self, data: &[u8]) -> Result<()> {
        self.check_live()?;
        let unit = self.open_copy()?;
        let Ok(message) = frontend::CopyData::new(data) else {
            return Err(Error::new(ErrorKind::Usage, "a piece of COPY data larger than 1 GiB"));
        };
        let start = self.output.len();
        message.write(&mut self.output);
        let cut = mutation::on(Mutation::CopyDataCut) && self.units[unit].sent;
        if self.units[unit].kept && !cut {
            self.journal.extend_from_slice(&self.output[start..]);
            self.units[unit].end = self.journal_base + self.journal.len();
        }
        if !self.units[unit].sent {
            // It waits for the journal on disk, and goes out with all its data.
            self.output.truncate(start);
        }
        if self.units[unit].kept {
            self.enforce_journal_limit();
        }
        Ok(())
    }

    /// Ends COPY FROM STDIN; `error` makes it fail.
    pub fn copy_end(&mut self, error: Option<&str>) -> Result<()> {
        self.check_live()?;
        let index = self.open_copy()?;
        let start = self.output.len();
        match error {
            None => frontend::copy_done(&mut self.output),
            Some(text) => frontend::copy_fail(text, &mut self.output)
                .map_err(|_| Error::new(ErrorKind::Usage, "the reason contains a NUL byte"))?,
        }
        self.journal.extend_from_slice(&self.output[start..]);
        let unit = &mut self.units[index];
        unit.end = self.journal_base + self.journal.len();
        unit.copy = CopyIn::Done;
        if unit.unprotected == Some(NO_LEDGER) && self.seals.enabled && self.seals.is_confirmed() {
            // It began on a server whose ledger could not be used, and ends on another.
            unit.unprotected = None;
            unit.seal = Some(self.seals.allot(false));
            unit.all_steps |= Steps::SEAL;
            unit.steps.expect_seal();
        }
        if !unit.sent {
            self.output.truncate(start);
            return Ok(());
        }
        let seal = unit.seal.filter(|_| unit.all_steps & Steps::SEAL != 0);
        if self.options.ends_behind_reply(seal) {
            unit.end_owed = true;
            frontend::flush(&mut self.output);
            return Ok(());
        }
        if let Some(seal) = seal {
            internals::write_seal(seal, &mut self.output);
        }
        frontend::sync(&mut self.output);
        Ok(())
    }

    fn open_copy(&self) -> Result<usize> {
        match self.units.back() {
            Some(unit) if unit.copy == CopyIn::Open => Ok(self.units.len() - 1),
            _ => Err(Error::new(ErrorKind::Usage, "no COPY FROM STDIN is under way")),
        }
    }

    /// Whether a COPY FROM STDIN still takes data.
    pub fn copies_in(&self) -> bool {
        self.units.back().is_some_and(|unit| unit.copy == CopyIn::Open)
    }
}
