//! Transactions handed over whole: what `segue.Client.submit` hands over, and tickets.
//!
//! Outcomes become known on threads of the core that run submissions. Nothing of Python runs there, nor
//! is the GIL asked for: they put a note into the queue of `segue._dispatch`, or into an event loop's
//! inbox.

use std::sync::Mutex;
use std::time::{Duration, Instant, UNIX_EPOCH};

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};
use segue::config::JournalMode;
use segue::{ErrorKind, Executed, Submission, ToSql};
use smallvec::SmallVec;
use uuid::Uuid;

use crate::client::{Client, EventQueue, Watched};
use crate::core::lock;
use crate::encode::{Args, Encoder};
use crate::errors;
use crate::hands::{Handover, Hands, Inbox, News};
use crate::objects::Objects;
use crate::plan::{self, Given};
use crate::signals;
use crate::text::{Plans, fill, given};

/// Who waits where signals are handled looks after them so often.
const LOOK: Duration = Duration::from_millis(50);

/// A statement as it comes: its text, its parameters, the fewest and the most rows.
type Stated<'py> = (Bound<'py, PyAny>, Option<Bound<'py, PyAny>>, Option<(u64, u64)>);

/// The submissions of a client.
#[pyclass(frozen, module = "segue._segue", name = "Submissions")]
pub struct Submissions {
    process: u32,
    open: Mutex<Option<Watched>>,
    hands: Hands,
    plans: Plans,
}

impl Submissions {
    fn client(&self, py: Python<'_>) -> PyResult<segue::Client> {
        check_process(py, self.process)?;
        match &*lock(&self.open) {
            Some(watched) => Ok(watched.client.clone()),
            None => Err(errors::interface(py, "the client is closed")),
        }
    }

    fn submission(
        &self,
        statements: &Bound<'_, PyList>,
        lane: Option<&str>,
        key: Option<&str>,
        stop_on_failure: bool,
    ) -> PyResult<Submission> {
        let py = statements.py();
        let encoder = Encoder { py, objects: Objects::get(py)?, json_dumps: None };
        let mut submission = Submission::new().stop_on_failure(stop_on_failure);
        for statement in statements.iter() {
            let (query, params, rows): Stated<'_> = statement.extract()?;
            let given = given(py, params.as_ref())?;
            let plan = self.plans.plan(&query, given)?;
            if given == Given::None && plan.sql.contains('$') {
                let count = plan::native_count(&plan.sql);
                if count > 0 {
                    return Err(errors::programming(
                        py,
                        format!(
                            "the statement takes {count} parameters, none were given; nothing was sent"
                        ),
                    ));
                }
            }
            let mut args = Args::default();
            if let Some(params) = params {
                fill(&encoder, &plan, given, &params, &mut args)?;
            }
            let raw = args.raw();
            let params: SmallVec<[&dyn ToSql; 8]> =
                raw.iter().map(|raw| raw as &dyn ToSql).collect();
            submission = submission
                .statement(&plan.sql, &params)
                .map_err(|error| errors::from_core(py, &error))?;
            if let Some((min, max)) = rows {
                submission = submission.expect_rows(min..=max);
            }
        }
        if let Some(lane) = lane {
            submission = submission.lane(lane);
        }
        if let Some(key) = key {
            submission = submission.key(key);
        }
        Ok(submission)
    }
}

/// Hands over; waits for room as `submit` of the core does, but looks every now and then whether it is to
/// go on. Ends with the error of a full queue if it is not.
pub fn hand_over(
    client: &segue::Client,
    submission: Submission,
    go_on: impl Fn() -> bool,
) -> segue::Result<segue::Ticket> {
    let deadline = Instant::now() + client.config().failover.timeout;
    loop {
        let now = Instant::now();
        let left = deadline.saturating_duration_since(now);
        let handed = client.submit_within(submission.clone(), left.min(LOOK));
        match &handed {
            // Refused before the time was over: there will never be room for it.
            Err(error)
                if error.kind() == ErrorKind::Limit
                    && left > LOOK
                    && now.elapsed() >= LOOK
                    && go_on() => {}
            _ => return handed,
        }
    }
}

#[pymethods]
impl Submissions {
    #[new]
    fn new(py: Python<'_>, client: &Bound<'_, Client>) -> PyResult<Self> {
        let watched = client.get().watched(py)?;
        Ok(Self {
            process: std::process::id(),
            hands: Hands::default(),
            open: Mutex::new(Some(watched)),
            plans: Plans::default(),
        })
    }

    #[pyo3(signature = (statements, lane, key, stop_on_failure, block))]
    fn submit(
        &self,
        statements: &Bound<'_, PyList>,
        lane: Option<&str>,
        key: Option<&str>,
        stop_on_failure: bool,
        block: bool,
    ) -> PyResult<Ticket> {
        let py = statements.py();
        let client = self.client(py)?;
        let submission = self.submission(statements, lane, key, stop_on_failure)?;
        let raised = Mutex::new(None);
        let handed = py.detach(|| {
            if !block {
                return client.try_submit(submission);
            }
            hand_over(&client, submission, || {
                signals::check().map_err(|error| *lock(&raised) = Some(error)).is_ok()
            })
        });
        if let Some(error) = lock(&raised).take() {
            return Err(error);
        }
        handed.map(Ticket::new).map_err(|error| errors::from_core(py, &error))
    }

    /// The same for an event loop: what may wait is done by threads, and `inbox` told of it under this
    /// number.
    #[pyo3(signature = (inbox, number, statements, lane, key, stop_on_failure, block))]
    #[allow(clippy::too_many_arguments)] // As the application gives them.
    fn submit_later(
        &self,
        inbox: &Bound<'_, Inbox>,
        number: u64,
        statements: &Bound<'_, PyList>,
        lane: Option<&str>,
        key: Option<&str>,
        stop_on_failure: bool,
        block: bool,
    ) -> PyResult<Handed> {
        let py = statements.py();
        let client = self.client(py)?;
        let submission = self.submission(statements, lane, key, stop_on_failure)?;
        // What waits already is ahead of it.
        if client.config().journal.mode == JournalMode::Memory && self.hands.are_idle() {
            match py.detach(|| client.try_submit(submission.clone())) {
                Err(error) if error.kind() == ErrorKind::Limit && block => {}
                handed => {
                    let ticket = handed.map_err(|error| errors::from_core(py, &error))?;
                    return Ok(Handed::Over(Ticket::new(ticket)));
                }
            }
        }
        let inbox = inbox.get().shared();
        let handover = self.hands.take(&client, submission, lane, block, inbox, number);
        handover.map(Handed::Later).map_err(|error| errors::from_core(py, &error))
    }

    fn ticket(&self, py: Python<'_>, id: u128) -> PyResult<Option<Ticket>> {
        let client = self.client(py)?;
        let found = py.detach(|| client.ticket(Uuid::from_u128(id)));
        found.map(|it| it.map(Ticket::new)).map_err(|error| errors::from_core(py, &error))
    }

    fn ticket_for_key(&self, py: Python<'_>, key: &str) -> PyResult<Option<Ticket>> {
        let client = self.client(py)?;
        let found = py.detach(|| client.ticket_for_key(key));
        found.map(|it| it.map(Ticket::new)).map_err(|error| errors::from_core(py, &error))
    }

    fn dead_letters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let client = self.client(py)?;
        let letters = py.detach(|| client.dead_letters());
        let letters = letters.map_err(|error| errors::from_core(py, &error))?;
        let list = PyList::empty(py);
        for letter in letters {
            let dict = PyDict::new(py);
            let died_at = letter.died_at.duration_since(UNIX_EPOCH).unwrap_or_default();
            dict.set_item("id", letter.id.as_u128())?;
            dict.set_item("key", letter.key)?;
            dict.set_item("lane", letter.lane)?;
            dict.set_item("stops_lane", letter.stops_lane)?;
            dict.set_item("died_at", died_at.as_secs_f64())?;
            dict.set_item("statement", letter.statement)?;
            dict.set_item("statements", PyTuple::new(py, letter.statements)?)?;
            dict.set_item("error", errors::from_core(py, &letter.error).into_value(py))?;
            dict.set_item("sqlstate", letter.sqlstate)?;
            dict.set_item("message", letter.message)?;
            dict.set_item("detail", letter.detail)?;
            list.append(dict)?;
        }
        Ok(list)
    }

    fn retry_dead_letter(&self, py: Python<'_>, id: u128) -> PyResult<Ticket> {
        let client = self.client(py)?;
        let ticket = py.detach(|| client.retry_dead_letter(Uuid::from_u128(id)));
        ticket.map(Ticket::new).map_err(|error| errors::from_core(py, &error))
    }

    fn purge_dead_letter(&self, py: Python<'_>, id: u128) -> PyResult<()> {
        let client = self.client(py)?;
        py.detach(|| client.purge_dead_letter(Uuid::from_u128(id)))
            .map_err(|error| errors::from_core(py, &error))
    }

    fn status<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let client = self.client(py)?;
        let status = py.detach(|| client.submissions());
        let status = status.map_err(|error| errors::from_core(py, &error))?;
        let dict = PyDict::new(py);
        macro_rules! set {
            ($($name:ident),* $(,)?) => {
                $(dict.set_item(stringify!($name), status.$name)?;)*
            };
        }
        set!(
            waiting,
            in_flight,
            dead_letters,
            lanes,
            lanes_stopped,
            bytes,
            journal_bytes,
            submitted,
            recovered,
            committed,
            found_done,
            resubmitted,
            died,
            lost,
            reapplied,
            problem,
        );
        Ok(dict)
    }

    /// Waits for what is being handed over. The core's client ends with the last that holds it.
    fn close(&self, py: Python<'_>) {
        let open = lock(&self.open).take();
        if self.process == std::process::id() {
            py.detach(|| self.hands.close());
        }
        drop(open);
    }
}

/// A ticket, or the promise of one.
#[derive(IntoPyObject)]
enum Handed {
    Over(Ticket),
    Later(Handover),
}

/// What a submission has done: rows of each statement, and whether it was found done.
type Done<'py> = (Bound<'py, PyTuple>, bool);

/// A submission that was accepted.
#[pyclass(frozen, module = "segue._segue", name = "Ticket")]
pub struct Ticket {
    ticket: segue::Ticket,
    process: u32,
}

impl Ticket {
    pub fn new(ticket: segue::Ticket) -> Self {
        Self { ticket, process: std::process::id() }
    }
}

#[pymethods]
impl Ticket {
    #[getter]
    fn id(&self) -> u128 {
        self.ticket.id().as_u128()
    }

    #[getter]
    fn key(&self) -> Option<&str> {
        self.ticket.key()
    }

    /// What has become of it, if that is known; raises its error.
    fn poll<'py>(&self, py: Python<'py>) -> PyResult<Option<Done<'py>>> {
        check_process(py, self.process)?;
        done(py, self.ticket.poll())
    }

    /// The same, but waits for at most so many seconds.
    #[pyo3(signature = (seconds = None))]
    fn wait<'py>(&self, py: Python<'py>, seconds: Option<f64>) -> PyResult<Option<Done<'py>>> {
        check_process(py, self.process)?;
        signals::note_thread(py);
        let timeout = seconds.map_or(Duration::MAX, duration);
        let deadline = Instant::now().checked_add(timeout);
        let look = if signals::are_handled_here() { LOOK } else { Duration::MAX };
        loop {
            let left = deadline.map_or(Duration::MAX, |deadline| {
                deadline.saturating_duration_since(Instant::now())
            });
            match py.detach(|| self.ticket.wait(left.min(look))) {
                Ok(None) if left > look => py.check_signals()?,
                outcome => return done(py, outcome),
            }
        }
    }

    /// Has the queue's thread call `callback` with `ticket` once the outcome is known.
    fn on_done(
        &self,
        py: Python<'_>,
        queue: &Bound<'_, EventQueue>,
        callback: Py<PyAny>,
        ticket: Py<PyAny>,
    ) -> PyResult<()> {
        check_process(py, self.process)?;
        let queue = queue.get().queue();
        py.detach(|| self.ticket.on_done(move |_| queue.push_call(callback, ticket)));
        Ok(())
    }

    /// Tells an inbox once the outcome is known.
    fn tell(&self, py: Python<'_>, inbox: &Bound<'_, Inbox>, number: u64) -> PyResult<()> {
        check_process(py, self.process)?;
        let inbox = inbox.get().shared();
        py.detach(|| self.ticket.on_done(move |_| inbox.put(number, News::Done)));
        Ok(())
    }
}

fn done(py: Python<'_>, outcome: segue::Result<Option<Executed>>) -> PyResult<Option<Done<'_>>> {
    match outcome {
        Ok(Some(done)) => Ok(Some((PyTuple::new(py, done.rows)?, done.found_done))),
        Ok(None) => Ok(None),
        Err(error) => Err(errors::from_core(py, &error)),
    }
}

/// No NaN, nothing below zero, nothing beyond what a `Duration` holds.
fn duration(seconds: f64) -> Duration {
    if seconds > 0.0 {
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    } else {
        Duration::ZERO
    }
}

/// In a child of fork() nobody would ever tell what has become of anything, and locks may be held for ever.
fn check_process(py: Python<'_>, process: u32) -> PyResult<()> {
    if process == std::process::id() {
        return Ok(());
    }
    Err(errors::forked(
        py,
        "the client was opened before fork(): open another in the child process",
    ))
}
