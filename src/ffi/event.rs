//! `segue_event` and `segue_subscription`: what a client tells of itself, by callback.

use std::cell::Cell;
use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr;
use std::sync::{Arc, PoisonError, RwLock};

use super::boundary::{Failure, boundary, free, handle, optional_text, output, read};
use super::client::segue_client;
use super::error::{Fields, c_string, or_null, segue_error};
use crate::client::{ClientEvent, Subscription};
use crate::cluster::ClusterEvent;
use crate::error::ServerError;

/// An event of a kind that is newer than the application.
pub const SEGUE_EVENT_OTHER: i32 = 0;
/// A server has missed polls. Nobody moves because of that alone.
pub const SEGUE_EVENT_SERVER_SUSPECT: i32 = 1;
/// A suspect or lost server answers again.
pub const SEGUE_EVENT_SERVER_RECOVERED: i32 = 2;
/// A server cannot be reached.
pub const SEGUE_EVENT_SERVER_LOST: i32 = 3;
/// A server takes no connection for now, and says that this will pass.
pub const SEGUE_EVENT_SERVER_COMING_BACK: i32 = 4;
/// Sessions belong on this server from now on. Number: timeline.
pub const SEGUE_EVENT_PRIMARY_CHOSEN: i32 = 5;
/// Sessions belong on this server from now on, because it was promoted. Number: timeline.
pub const SEGUE_EVENT_PROMOTED: i32 = 6;
/// No server can be used for what the configuration asks.
pub const SEGUE_EVENT_NO_SERVER: i32 = 7;
/// An old primary is there, on a timeline that the cluster has left: it is refused. Number: timeline.
pub const SEGUE_EVENT_STALE_SERVER: i32 = 8;
/// A server belongs to another cluster: it is refused.
pub const SEGUE_EVENT_OTHER_CLUSTER: i32 = 9;
/// Segue itself promotes a standby (on_primary_loss=promote).
pub const SEGUE_EVENT_PROMOTING: i32 = 10;
/// Segue's own promotion did not work.
pub const SEGUE_EVENT_PROMOTION_FAILED: i32 = 11;
/// So many links are warm on a server. Number: links.
pub const SEGUE_EVENT_WARM: i32 = 12;
/// A session's in-flight transaction is being run again on another server. Number: statements.
pub const SEGUE_EVENT_REPLAY_STARTED: i32 = 20;
/// All that the application has seen has matched.
pub const SEGUE_EVENT_REPLAY_FINISHED: i32 = 21;
/// The replay gave something else at a statement, and was rolled back. Number: statement, from 1.
pub const SEGUE_EVENT_REPLAY_DIVERGED: i32 = 22;
/// The session has a server again. Number: pause_us, how long it was without one.
pub const SEGUE_EVENT_SESSION_MOVED: i32 = 23;
/// The session, or its open transaction, goes on without protection.
pub const SEGUE_EVENT_PROTECTION_LOST: i32 = 24;
/// Commits that were acknowledged are not on the server that took over. Numbers: from, to.
pub const SEGUE_EVENT_COMMITS_LOST: i32 = 25;
/// A commit that was acknowledged and then lost was run again, and stands. Number: number.
pub const SEGUE_EVENT_COMMIT_REAPPLIED: i32 = 26;
/// A notice of the server's; see segue_event_field().
pub const SEGUE_EVENT_NOTICE: i32 = 27;
/// A submission has become a dead letter: nothing of it is committed, and it is kept until it is retried
/// or purged. The message names its id; segue_event_field() gives SQLSTATE ('C') and message ('M').
pub const SEGUE_EVENT_SUBMISSION_DIED: i32 = 28;
/// The client's journal holds transactions of an earlier process that nobody has asked about yet. Told to the
/// first callback, while it is put in place. Number: count.
pub const SEGUE_EVENT_TRANSACTIONS_FOUND: i32 = 29;
/// Submissions that were told to be committed are not on the server that took over, and are not run again
/// by themselves: segue_event_submission_id() names them. Number: others, 1 if earlier ones may be lost
/// too, whose names are not remembered any more.
pub const SEGUE_EVENT_SUBMISSIONS_LOST: i32 = 30;
/// A submission that was told to be committed and then lost was run again, and stands.
pub const SEGUE_EVENT_SUBMISSION_REAPPLIED: i32 = 31;

/// Something that an operator may want to know. It is good during the callback only, on its thread. No
/// event contains a secret or a parameter's value.
pub struct segue_event {
    kind: i32,
    name: &'static CStr,
    message: CString,
    session: u64,
    server: i32,
    address: Option<CString>,
    numbers: Vec<(&'static str, i64)>,
    fields: Fields,
    submissions: Vec<Name>,
}

/// Names a submission.
struct Name {
    id: CString,
    key: Option<CString>,
}

impl Name {
    fn new(id: &uuid::Uuid, key: Option<&String>) -> Self {
        Self { id: c_string(id.to_string()), key: key.map(|key| c_string(key.as_str())) }
    }
}

/// What is called for an event: on the thread where it happens. It must not block, must not use this
/// client's sessions, and must not throw a C++ exception.
pub type segue_event_callback =
    Option<unsafe extern "C" fn(event: *const segue_event, user_data: *mut c_void)>;

/// What is called once the user data is not needed any more.
pub type segue_destroy_callback = Option<unsafe extern "C" fn(user_data: *mut c_void)>;

fn integer(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

impl segue_event {
    fn new(event: &ClientEvent) -> Self {
        let (kind, name) = kind(event);
        let mut this = Self {
            kind,
            name,
            message: CString::default(),
            session: 0,
            server: -1,
            address: None,
            numbers: Vec::new(),
            fields: Fields::default(),
            submissions: Vec::new(),
        };
        let message = match event {
            ClientEvent::Cluster(event) => {
                this.describe_cluster(event);
                event.to_string()
            }
            ClientEvent::ReplayStarted { session, statements } => {
                this.session = *session;
                this.numbers.push(("statements", integer(*statements)));
                format!("session {session}: replay of {statements} statements started")
            }
            ClientEvent::ReplayFinished { session } => {
                this.session = *session;
                format!("session {session}: replay finished, all of it matched")
            }
            ClientEvent::ReplayDiverged { session, statement } => {
                this.session = *session;
                this.numbers.push(("statement", integer(*statement)));
                format!("session {session}: replay diverged at statement {statement}, rolled back")
            }
            ClientEvent::SessionMoved { session, server, pause } => {
                this.session = *session;
                this.server = i32::try_from(*server).unwrap_or(-1);
                this.numbers.push(("pause_us", integer(pause.as_micros())));
                format!("session {session}: on server {server} after {} ms", pause.as_millis())
            }
            ClientEvent::ProtectionLost { session, reason } => {
                this.session = *session;
                format!("session {session}: protection lost: {reason}")
            }
            ClientEvent::CommitsLost { session, from, to, .. } => {
                this.session = *session;
                this.numbers.extend([("from", integer(*from)), ("to", integer(*to))]);
                format!("session {session}: acknowledged commits {from} to {to} are lost")
            }
            ClientEvent::CommitReapplied { session, number, .. } => {
                this.session = *session;
                this.numbers.push(("number", integer(*number)));
                format!("session {session}: lost commit {number} was run again, and stands")
            }
            ClientEvent::SubmissionDied { id, key, sqlstate, message } => {
                this.submissions.push(Name::new(id, key.as_ref()));
                this.fields = Fields::new(&ServerError {
                    severity: "ERROR".to_owned(),
                    code: sqlstate.clone(),
                    message: message.clone(),
                    ..ServerError::default()
                });
                format!("submission {id} is a dead letter: {message}")
            }
            ClientEvent::SubmissionsLost { submissions, others } => {
                let names = submissions.iter().map(|it| Name::new(&it.id, it.key.as_ref()));
                this.submissions = names.collect();
                this.numbers.push(("others", i64::from(*others)));
                let count = submissions.len();
                let more = if *others { ", and perhaps earlier ones" } else { "" };
                format!("{count} submissions that were told to be committed are lost{more}")
            }
            ClientEvent::SubmissionReapplied { id, key } => {
                this.submissions.push(Name::new(id, key.as_ref()));
                format!("lost submission {id} was run again, and stands")
            }
            ClientEvent::TransactionsFound { count } => {
                this.numbers.push(("count", integer(*count)));
                format!("the journal holds {count} transactions of an earlier process")
            }
            ClientEvent::Notice { session, notice } => {
                this.session = *session;
                this.fields = Fields::new(notice);
                format!("session {session}: {notice}")
            }
        };
        this.message = c_string(message);
        this
    }

    fn describe_cluster(&mut self, event: &ClusterEvent) {
        let (server, address) = match event {
            ClusterEvent::NoServer { .. } => return,
            ClusterEvent::Suspect { server, address }
            | ClusterEvent::Recovered { server, address }
            | ClusterEvent::Lost { server, address, .. }
            | ClusterEvent::ComingBack { server, address, .. }
            | ClusterEvent::PrimaryChosen { server, address, .. }
            | ClusterEvent::Promoted { server, address, .. }
            | ClusterEvent::Stale { server, address, .. }
            | ClusterEvent::OtherCluster { server, address, .. }
            | ClusterEvent::Promoting { server, address }
            | ClusterEvent::PromotionFailed { server, address, .. }
            | ClusterEvent::Warm { server, address, .. } => (*server, address),
        };
        self.server = i32::try_from(server).unwrap_or(-1);
        self.address = Some(c_string(address.as_str()));
        match event {
            ClusterEvent::PrimaryChosen { timeline, .. }
            | ClusterEvent::Promoted { timeline, .. }
            | ClusterEvent::Stale { timeline, .. } => {
                self.numbers.push(("timeline", (*timeline).into()));
            }
            ClusterEvent::Warm { links, .. } => self.numbers.push(("links", integer(*links))),
            _ => {}
        }
    }
}

fn kind(event: &ClientEvent) -> (i32, &'static CStr) {
    match event {
        ClientEvent::Cluster(event) => match event {
            ClusterEvent::Suspect { .. } => (SEGUE_EVENT_SERVER_SUSPECT, c"server_suspect"),
            ClusterEvent::Recovered { .. } => (SEGUE_EVENT_SERVER_RECOVERED, c"server_recovered"),
            ClusterEvent::Lost { .. } => (SEGUE_EVENT_SERVER_LOST, c"server_lost"),
            ClusterEvent::ComingBack { .. } => {
                (SEGUE_EVENT_SERVER_COMING_BACK, c"server_coming_back")
            }
            ClusterEvent::PrimaryChosen { .. } => (SEGUE_EVENT_PRIMARY_CHOSEN, c"primary_chosen"),
            ClusterEvent::Promoted { .. } => (SEGUE_EVENT_PROMOTED, c"promoted"),
            ClusterEvent::NoServer { .. } => (SEGUE_EVENT_NO_SERVER, c"no_server"),
            ClusterEvent::Stale { .. } => (SEGUE_EVENT_STALE_SERVER, c"stale_server"),
            ClusterEvent::OtherCluster { .. } => (SEGUE_EVENT_OTHER_CLUSTER, c"other_cluster"),
            ClusterEvent::Promoting { .. } => (SEGUE_EVENT_PROMOTING, c"promoting"),
            ClusterEvent::PromotionFailed { .. } => {
                (SEGUE_EVENT_PROMOTION_FAILED, c"promotion_failed")
            }
            ClusterEvent::Warm { .. } => (SEGUE_EVENT_WARM, c"warm"),
        },
        ClientEvent::ReplayStarted { .. } => (SEGUE_EVENT_REPLAY_STARTED, c"replay_started"),
        ClientEvent::ReplayFinished { .. } => (SEGUE_EVENT_REPLAY_FINISHED, c"replay_finished"),
        ClientEvent::ReplayDiverged { .. } => (SEGUE_EVENT_REPLAY_DIVERGED, c"replay_diverged"),
        ClientEvent::SessionMoved { .. } => (SEGUE_EVENT_SESSION_MOVED, c"session_moved"),
        ClientEvent::ProtectionLost { .. } => (SEGUE_EVENT_PROTECTION_LOST, c"protection_lost"),
        ClientEvent::CommitsLost { .. } => (SEGUE_EVENT_COMMITS_LOST, c"commits_lost"),
        ClientEvent::CommitReapplied { .. } => (SEGUE_EVENT_COMMIT_REAPPLIED, c"commit_reapplied"),
        ClientEvent::SubmissionDied { .. } => (SEGUE_EVENT_SUBMISSION_DIED, c"submission_died"),
        ClientEvent::SubmissionsLost { .. } => (SEGUE_EVENT_SUBMISSIONS_LOST, c"submissions_lost"),
        ClientEvent::SubmissionReapplied { .. } => {
            (SEGUE_EVENT_SUBMISSION_REAPPLIED, c"submission_reapplied")
        }
        ClientEvent::TransactionsFound { .. } => {
            (SEGUE_EVENT_TRANSACTIONS_FOUND, c"transactions_found")
        }
        ClientEvent::Notice { .. } => (SEGUE_EVENT_NOTICE, c"notice"),
    }
}

/// Keeps a callback in place until it is freed.
pub struct segue_subscription {
    subscription: Option<Subscription>,
    listener: Arc<Listener>,
}

/// The application's callback and what it is called with.
struct Listener {
    callback: unsafe extern "C" fn(*const segue_event, *mut c_void),
    user_data: UserData,
    /// Held for reading while the callback runs; false once it must not be called any more.
    alive: RwLock<bool>,
}

/// What a callback is called with; destroyed once nobody needs it any more.
pub(super) struct UserData {
    pub pointer: *mut c_void,
    pub destroy: segue_destroy_callback,
}

// SAFETY: the header says that the callbacks are called on other threads; what they make of the
// pointer is theirs, and nothing here looks behind it.
unsafe impl Send for UserData {}
// SAFETY: as above.
unsafe impl Sync for UserData {}

impl Drop for UserData {
    fn drop(&mut self) {
        if let Some(destroy) = self.destroy {
            // SAFETY: by the header's contract it takes this pointer, once, on any thread.
            unsafe { destroy(self.pointer) };
        }
    }
}

thread_local! {
    /// Whether this thread is inside a callback.
    static CALLING: Cell<bool> = const { Cell::new(false) };
}

impl Listener {
    fn hear(&self, event: &ClientEvent) {
        let alive = self.alive.read().unwrap_or_else(PoisonError::into_inner);
        if !*alive {
            return;
        }
        let event = segue_event::new(event);
        let outer = CALLING.replace(true);
        // SAFETY: by the header's contract the callback takes an event and the user data, which has not
        // been destroyed: that waits for this lock, or for the last reference to the listener.
        unsafe { (self.callback)(&raw const event, self.user_data.pointer) };
        CALLING.set(outer);
    }
}

impl Drop for segue_subscription {
    fn drop(&mut self) {
        self.subscription = None;
        // From inside a callback nobody can wait for its end; the listener outlives it all the same.
        if CALLING.get() {
            return;
        }
        *self.listener.alive.write().unwrap_or_else(PoisonError::into_inner) = false;
    }
}

/// Has a callback called for every event of a client, until the subscription is freed.
///
/// @param[in]  client            The client.
/// @param[in]  callback          What is called, on the thread where an event happens, and on several
///                               threads at once. It must not block or use this client's sessions.
/// @param[in]  user_data         What it is called with; may be NULL.
/// @param[in]  destroy           Called once with the user data when it is not needed any more, also if
///                               this function fails; may be NULL.
/// @param[out] subscription_out  The subscription; free with segue_subscription_free().
/// @param[out] error_out         Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK  the callback is in place
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_client_on_event(
    client: *const segue_client,
    callback: segue_event_callback,
    user_data: *mut c_void,
    destroy: segue_destroy_callback,
    subscription_out: *mut *mut segue_subscription,
    error_out: *mut *mut segue_error,
) -> i32 {
    let user_data = UserData { pointer: user_data, destroy };
    boundary(error_out, || {
        // SAFETY: the header's contract for a handle and an output.
        let (client, subscription_out) =
            unsafe { (handle(client, "client")?, output(subscription_out, "subscription_out")?) };
        let callback = callback.ok_or_else(|| Failure::argument("callback is NULL"))?;
        let listener = Arc::new(Listener { callback, user_data, alive: RwLock::new(true) });
        let ear = Arc::clone(&listener);
        let subscription = client.0.on_event(move |event| ear.hear(event));
        subscription_out.give(segue_subscription { subscription: Some(subscription), listener });
        Ok(())
    })
}

/// Removes a callback. When this returns, the callback is not running and will not be called any more,
/// unless this was called from inside a callback: then only later ones are prevented.
///
/// @param[in] subscription  A subscription; NULL does nothing.
/// Threads: any. Waits for callbacks that are running on other threads.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_subscription_free(subscription: *mut segue_subscription) {
    // SAFETY: the header's contract: NULL or a subscription that has not been freed.
    unsafe { free(subscription) }
}

/// The kind of an event.
///
/// @param[in] event  An event; NULL gives SEGUE_EVENT_OTHER.
/// @return SEGUE_EVENT_...
/// Threads: the callback's.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_event_kind(event: *const segue_event) -> i32 {
    // SAFETY: the header's contract: NULL or the event of a callback that is running.
    unsafe { read(event, SEGUE_EVENT_OTHER, |event| Some(event.kind)) }
}

/// The name of an event's kind, such as "session_moved".
///
/// @param[in] event  An event; NULL gives "other".
/// @return a static text; never NULL
/// Threads: the callback's.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_event_name(event: *const segue_event) -> *const c_char {
    // SAFETY: the header's contract: NULL or the event of a callback that is running.
    unsafe { read(event, c"other".as_ptr(), |event| Some(event.name.as_ptr())) }
}

/// What has happened, on one line for people.
///
/// @param[in] event  An event; NULL gives "".
/// @return a text that is good during the callback; never NULL
/// Threads: the callback's.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_event_message(event: *const segue_event) -> *const c_char {
    // SAFETY: the header's contract: NULL or the event of a callback that is running.
    unsafe { read(event, c"".as_ptr(), |event| Some(event.message.as_ptr())) }
}

/// The session that an event concerns.
///
/// @param[in] event  An event; NULL gives 0.
/// @return the number that segue_session_state_id() gives; 0 if it concerns none
/// Threads: the callback's.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_event_session(event: *const segue_event) -> u64 {
    // SAFETY: the header's contract: NULL or the event of a callback that is running.
    unsafe { read(event, 0, |event| Some(event.session)) }
}

/// The server that an event concerns.
///
/// @param[in] event  An event; NULL gives -1.
/// @return its position among the configuration's hosts, from 0; -1 if it concerns none
/// Threads: the callback's.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_event_server(event: *const segue_event) -> i32 {
    // SAFETY: the header's contract: NULL or the event of a callback that is running.
    unsafe { read(event, -1, |event| Some(event.server)) }
}

/// The address of the server that an event concerns.
///
/// @param[in] event  An event, or NULL.
/// @return a text that is good during the callback; NULL if the event has none
/// Threads: the callback's.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_event_address(event: *const segue_event) -> *const c_char {
    // SAFETY: the header's contract: NULL or the event of a callback that is running.
    unsafe { read(event, ptr::null(), |event| Some(or_null(event.address.as_ref()))) }
}

/// A number that an event carries: "timeline", "links", "statements", "statement", "pause_us", "from",
/// "to", "number", "count", "others"; the kinds say which.
///
/// @param[in] event  An event, or NULL.
/// @param[in] name   The number's name, or NULL.
/// @return the number; -1 if the event has none of that name
/// Threads: the callback's.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_event_number(event: *const segue_event, name: *const c_char) -> i64 {
    let find = |event: &segue_event| {
        // SAFETY: the header's contract: NULL or a string with its NUL.
        let name = unsafe { optional_text(name, "name") }.ok()??;
        event.numbers.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
    };
    // SAFETY: the header's contract: NULL or the event of a callback that is running.
    unsafe { read(event, -1, find) }
}

/// A field of a notice or a dead letter; the codes are those of segue_error_field().
///
/// @param[in] event  An event, or NULL.
/// @param[in] field  The code of the field.
/// @return a text that is good during the callback; NULL if there is no such field
/// Threads: the callback's.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_event_field(
    event: *const segue_event,
    field: c_char,
) -> *const c_char {
    // SAFETY: the header's contract: NULL or the event of a callback that is running.
    unsafe { read(event, ptr::null(), |event| event.fields.find(field.to_ne_bytes()[0])) }
}

/// How many submissions an event names.
///
/// @param[in] event  An event; NULL gives 0.
/// @return their number: those that are lost, or the one that has died or was run again; else 0
/// Threads: the callback's.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_event_submission_count(event: *const segue_event) -> usize {
    // SAFETY: the header's contract: NULL or the event of a callback that is running.
    unsafe { read(event, 0, |event| Some(event.submissions.len())) }
}

/// The id of a submission that an event names, as segue_ticket_id() gives it.
///
/// @param[in] event  An event, or NULL.
/// @param[in] index  Which of them, from 0.
/// @return a text that is good during the callback; NULL if the event names none there
/// Threads: the callback's.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_event_submission_id(
    event: *const segue_event,
    index: usize,
) -> *const c_char {
    let id = |event: &segue_event| event.submissions.get(index).map(|name| name.id.as_ptr());
    // SAFETY: the header's contract: NULL or the event of a callback that is running.
    unsafe { read(event, ptr::null(), id) }
}

/// The key of a submission that an event names: the application's own name for it.
///
/// @param[in] event  An event, or NULL.
/// @param[in] index  Which of them, from 0.
/// @return a text that is good during the callback; NULL if it has no key, or the event names none there
/// Threads: the callback's.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_event_submission_key(
    event: *const segue_event,
    index: usize,
) -> *const c_char {
    let key =
        |event: &segue_event| event.submissions.get(index)?.key.as_ref().map(|key| key.as_ptr());
    // SAFETY: the header's contract: NULL or the event of a callback that is running.
    unsafe { read(event, ptr::null(), key) }
}
