//! A request that is being made: its statement looked up, prepared, its types learned, and sent.

use std::sync::Arc;

use segue::client::Progress;
use segue::wire::frame::Status;
use segue::{Error, ErrorKind, Result, ToSql, TransactionOptions};
use smallvec::SmallVec;

use super::{BATCH, Core, Io, Purpose, Ticket, lock};
use crate::decode::Decoders;
use crate::encode::Args;
use crate::plan::{Plan, Variant};

const QUERY_CANCELED: &str = "57014";

/// What is asked of a session.
pub struct Request {
    pub plan: Arc<Plan>,
    pub args: Args,
    /// Further sets of parameters, of the same types.
    pub more: Vec<Args>,
    pub purpose: Purpose,
}

/// What a request that is being made waits for.
#[derive(Debug)]
enum Stage {
    Ready,
    Prepare(Ticket, segue::client::Preparing),
    Types(Ticket, segue::client::Prepared),
    Execute(Option<Arc<Variant>>),
}

/// A request that is being made.
pub struct Making {
    pub request: Request,
    /// A transaction is begun for it if none is open.
    pub begin: Option<TransactionOptions>,
    stage: Stage,
}

impl Making {
    pub fn new(request: Request, begin: Option<TransactionOptions>) -> Self {
        Self { request, begin, stage: Stage::Ready }
    }

    /// What was asked for it and has not been answered.
    pub fn asked(&self) -> Option<Ticket> {
        match &self.stage {
            Stage::Prepare(ticket, _) | Stage::Types(ticket, _) => Some(*ticket),
            Stage::Ready | Stage::Execute(_) => None,
        }
    }
}

impl Core {
    /// Makes a request: brings it to where its reply can be waited for.
    pub fn make(&mut self, making: &mut Making, io: Io) -> Result<Progress<Ticket>> {
        loop {
            match &mut making.stage {
                Stage::Ready => {
                    ready!(self.get_ready(io)?);
                    let plan = &making.request.plan;
                    if let Some(options) = &making.begin {
                        if self.status() == Status::Idle && !plan.bounds_transaction {
                            self.begin(options)?;
                        }
                    }
                    making.stage = self.look_up(&making.request)?;
                }
                Stage::Prepare(ticket, _) => {
                    let reply = ready!(self.reply(*ticket, io)?);
                    let stage = std::mem::replace(&mut making.stage, Stage::Execute(None));
                    let Stage::Prepare(_, preparing) = stage else { continue };
                    match reply {
                        Ok(_) => {
                            making.stage = self.prepared(&making.request, preparing.finish())?
                        }
                        // Executing it fails in the same way, and the transaction with it. But what was
                        // cancelled is not to run a second time: the transaction has not begun then.
                        Err(error)
                            if self.session.ends_without_server()
                                && error.sqlstate() != QUERY_CANCELED => {}
                        Err(error) => return Err(error),
                    }
                }
                Stage::Types(ticket, _) => {
                    let reply = ready!(self.reply(*ticket, io)?);
                    let stage = std::mem::replace(&mut making.stage, Stage::Execute(None));
                    let Stage::Types(_, prepared) = stage else { continue };
                    crate::introspect::learn(&self.types, &reply?);
                    making.stage = Stage::Execute(Some(self.remember(&making.request, prepared)));
                }
                Stage::Execute(variant) => {
                    let variant = variant.take();
                    let request = &making.request;
                    if !request.more.is_empty() {
                        self.start_sets(request, variant.as_deref())?;
                        return Ok(Progress::Ready(self.enqueue(Purpose::Whole, false, None)));
                    }
                    let streamed = request.purpose != Purpose::Whole;
                    let raw = request.args.raw();
                    let params: SmallVec<[&dyn ToSql; 8]> =
                        raw.iter().map(|raw| raw as &dyn ToSql).collect();
                    let text = match &variant {
                        Some(variant) => {
                            let formats = variant.decoders.formats();
                            let prepared = &variant.prepared;
                            self.session.start(prepared, &params, false, &formats, streamed)?
                        }
                        None => {
                            self.session.start(&*request.plan.sql, &params, false, &[], streamed)?
                        }
                    };
                    let expected = variant.map(|variant| Arc::clone(&variant.decoders));
                    return Ok(Progress::Ready(self.enqueue(request.purpose, text, expected)));
                }
            }
        }
    }

    fn start_sets(&mut self, request: &Request, variant: Option<&Variant>) -> Result<()> {
        let raw: Vec<_> =
            std::iter::once(&request.args).chain(&request.more).map(Args::raw).collect();
        let sets: Vec<SmallVec<[&dyn ToSql; 8]>> =
            raw.iter().map(|set| set.iter().map(|raw| raw as &dyn ToSql).collect()).collect();
        let sets: Vec<&[&dyn ToSql]> = sets.iter().map(|set| &set[..]).collect();
        match variant {
            Some(variant) => self.session.start_sets(&variant.prepared, &sets),
            None => self.session.start_sets(&*request.plan.sql, &sets),
        }
    }

    /// Whether a request can be made without waiting for anything.
    pub fn makes_at_once(&self, making: &Making) -> bool {
        self.session.accepts_requests()
            && self.session.unsent() < BATCH
            && making.begin.is_none()
            && (!making.request.plan.may_return_rows
                || lock(&making.request.plan.variants).iter().any(|variant| {
                    making.request.args.has_oids(&variant.oids)
                        && variant.decoders.epoch == self.types.epoch()
                }))
    }

    /// What is known of a statement with these parameters; if nothing is, the server is asked.
    fn look_up(&mut self, request: &Request) -> Result<Stage> {
        let plan = &request.plan;
        if !plan.may_return_rows || request.purpose == Purpose::Copy {
            return Ok(Stage::Execute(None));
        }
        let known = {
            let mut variants = lock(&plan.variants);
            let at = variants.iter().position(|variant| request.args.has_oids(&variant.oids));
            match at {
                Some(at) if variants[at].decoders.epoch == self.types.epoch() => {
                    Some(Arc::clone(&variants[at]))
                }
                // A type was registered meanwhile.
                Some(at) => {
                    let old = variants.swap_remove(at);
                    drop(variants);
                    return self.described(request, old.prepared.clone());
                }
                None => None,
            }
        };
        if known.is_some() {
            return Ok(Stage::Execute(known));
        }
        let preparing = self.session.start_prepare(&plan.sql, &request.args.oids())?;
        let ticket = self.enqueue(Purpose::Whole, false, None);
        Ok(Stage::Prepare(ticket, preparing))
    }

    fn prepared(&mut self, request: &Request, prepared: segue::client::Prepared) -> Result<Stage> {
        let (given, taken) = (request.args.raw().len(), prepared.param_oids().len());
        if given != taken {
            return Err(Error::new(
                ErrorKind::Usage,
                format!(
                    "the statement takes {taken} parameters, {given} were given; nothing was sent"
                ),
            ));
        }
        self.described(request, prepared)
    }

    fn described(&mut self, request: &Request, prepared: segue::client::Prepared) -> Result<Stage> {
        let strange: Vec<u32> = prepared
            .columns()
            .iter()
            .map(|column| column.type_oid)
            .filter(|oid| self.types.is_strange(*oid))
            .collect();
        if strange.is_empty() {
            return Ok(Stage::Execute(Some(self.remember(request, prepared))));
        }
        let sql = crate::introspect::sql(&strange);
        self.session.start(&*sql, &[], true, &[], false)?;
        let ticket = self.enqueue(Purpose::Whole, true, None);
        Ok(Stage::Types(ticket, prepared))
    }

    fn remember(&mut self, request: &Request, prepared: segue::client::Prepared) -> Arc<Variant> {
        let decoders = Arc::new(Decoders::new(prepared.shared_columns(), &self.types));
        let oids = request.args.oids().into_vec().into_boxed_slice();
        let variant = Arc::new(Variant { oids, prepared, decoders });
        let mut variants = lock(&request.plan.variants);
        // Parameters of ever new types would fill the memory.
        if variants.len() >= 32 {
            variants.clear();
        }
        variants.push(Arc::clone(&variant));
        variant
    }
}
