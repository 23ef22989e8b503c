//! `segue setup`: installs, upgrades, removes and purges the ledger, and says who may use it how.

use std::process::ExitCode;

use clap::Args;
use segue::client::SetupOptions;
use segue::config::LedgerMode;
use segue::session::ledger;
use segue::{Client, Config, Error, ErrorKind, Outcome, Session};

use crate::output::{Failure, err, grouped, out};

#[derive(Args)]
pub struct Options {
    /// The cluster, as a URI or a keyword string; needs a role that may create a schema
    #[arg(required_unless_present = "print")]
    uri: Option<String>,
    /// Let applications use the ledger through functions alone: slower, and proof against a hostile
    /// role in the same database
    #[arg(long, conflicts_with_all = ["remove", "purge"])]
    hardened: bool,
    /// The role that may use the ledger; everybody if none is given
    #[arg(long, conflicts_with_all = ["remove", "purge"])]
    role: Option<String>,
    /// Remove the ledger; sessions in use lose their protection
    #[arg(long, conflicts_with = "purge")]
    remove: bool,
    /// Print the SQL and connect to nothing
    #[arg(long, conflicts_with = "purge")]
    print: bool,
    /// Delete what sessions opened longer ago than this have left behind, such as "30 days"
    #[arg(long, value_name = "INTERVAL")]
    purge: Option<String>,
}

/// Who may do what with the ledger, by the catalogue. Column grants are told with their columns.
const GRANTS: &str = "\
SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee) END, x.what, \
string_agg(DISTINCT lower(a.privilege_type), ', ' ORDER BY lower(a.privilege_type)) \
FROM ( \
SELECT n.nspacl AS acl, 'schema segue' AS what, 1 AS place FROM pg_namespace n \
WHERE n.nspname = 'segue' \
UNION ALL SELECT c.relacl, 'table segue.ledger', 2 FROM pg_class c \
WHERE c.relnamespace = to_regnamespace('segue') AND c.relname = 'ledger' \
UNION ALL SELECT t.attacl, 'column segue.ledger.' || t.attname, 3 FROM pg_attribute t \
JOIN pg_class c ON c.oid = t.attrelid \
WHERE c.relnamespace = to_regnamespace('segue') AND c.relname = 'ledger' \
UNION ALL SELECT p.proacl, 'function segue.' || p.proname, 4 FROM pg_proc p \
WHERE p.pronamespace = to_regnamespace('segue')) x, aclexplode(x.acl) a, pg_namespace n \
WHERE n.nspname = 'segue' AND a.grantee <> n.nspowner \
GROUP BY 1, 2, x.place ORDER BY 1, x.place, 2";

const STATE: &str = "\
SELECT coalesce((SELECT substring(p.prosrc FROM 'SELECT ([0-9]+)') FROM pg_proc p \
WHERE p.pronamespace = to_regnamespace('segue') AND p.proname = 'version'), ''), \
coalesce((SELECT pg_get_userbyid(n.nspowner) FROM pg_namespace n WHERE n.nspname = 'segue'), ''), \
current_user::text, current_database()::text";

pub fn run(options: &Options) -> Result<ExitCode, Failure> {
    if options.print {
        print(options);
        return Ok(ExitCode::SUCCESS);
    }
    let mut config = Config::parse(options.uri.as_deref().unwrap_or_default())?;
    for warning in config.warnings.iter() {
        err(&format!("warning: {warning}"));
    }
    // The sessions of this command are only to look: what is installed is what was asked for.
    config.ledger.mode = LedgerMode::Off;
    carry_out(options, config).map_err(|error| with_advice(error, options))?;
    Ok(ExitCode::SUCCESS)
}

fn print(options: &Options) {
    if options.remove {
        out(ledger::remove_sql().trim_end());
        return;
    }
    let sql = ledger::install_sql(options.hardened, options.role.as_deref());
    let end = if sql.trim_end().ends_with(';') { "" } else { ";" };
    out(&format!("{}{end}", sql.trim_end()));
}

struct State {
    /// Empty if there is no ledger.
    version: String,
    owner: String,
    role: String,
    database: String,
}

fn state(session: &mut Session) -> Result<State, Error> {
    let row = session.query_one(STATE, &[])?;
    Ok(State { version: row.get(0)?, owner: row.get(1)?, role: row.get(2)?, database: row.get(3)? })
}

fn carry_out(options: &Options, config: Config) -> Result<(), Error> {
    let client = Client::open(config)?;
    let mut session = client.session()?;
    let before = state(&mut session)?;
    let place = format!(
        "database {} on {}",
        before.database,
        session.status().address.unwrap_or_else(|| "the primary".to_owned())
    );
    if let Some(interval) = &options.purge {
        return purge(&mut session, &before, interval, &place);
    }
    if options.remove {
        client.remove_ledger()?;
        out(&match before.version.as_str() {
            "" => format!("There was no ledger in {place}; nothing was done."),
            version => format!(
                "Removed the ledger (version {version}) from {place}. Commits in flight when a server \
                 is lost end with an unknown outcome from now on. A session whose role may create \
                 schemas installs it again, unless ledger=off."
            ),
        });
        return Ok(());
    }
    client.setup(&SetupOptions::default().hardened(options.hardened).role(options.role.clone()))?;
    let after = state(&mut session)?;
    let wanted = ledger::VERSION.to_string();
    out(&match before.version.as_str() {
        "" => format!("Installed the ledger (version {}) in {place}.", after.version),
        version if version == after.version && version == wanted => {
            format!("The ledger in {place} has version {version} already; its grants were renewed.")
        }
        version if version == after.version => format!(
            "The ledger in {place} has version {version}, newer than this program's {wanted}; \
             it was left as it is."
        ),
        version => {
            format!("Upgraded the ledger in {place} from version {version} to {}.", after.version)
        }
    });
    privileges(&mut session, &after)
}

fn purge(session: &mut Session, state: &State, interval: &str, place: &str) -> Result<(), Error> {
    if state.version.is_empty() {
        out(&format!("There is no ledger in {place}; nothing was done."));
        return Ok(());
    }
    let text = "SELECT $1::text::interval >= interval '1 day'";
    if !session.query_one(text, &[&interval])?.get::<bool>(0)? {
        return Err(Error::new(
            ErrorKind::Usage,
            "the rows of sessions in use must not be purged, and a session may keep one for hours: \
             give an interval of a day at least; nothing was done",
        ));
    }
    let row = session.query_one("SELECT segue.purge($1::text::interval)", &[&interval])?;
    let purged: i64 = row.get(0)?;
    out(&format!(
        "Purged {} rows opened more than {interval} ago from the ledger in {place}.",
        grouped(purged.unsigned_abs())
    ));
    Ok(())
}

fn privileges(session: &mut Session, state: &State) -> Result<(), Error> {
    let access: String = session.query_one(&format!("SELECT {}", ledger::ACCESS), &[])?.get(0)?;
    out(&format!(
        "The role {} {}. Owner of the ledger: {}, who may purge it.",
        state.role,
        match access.as_str() {
            "table" => "seals by the table: the fast form",
            "function" => "seals through functions alone: the hardened form",
            _ => "may not use it",
        },
        state.owner
    ));
    out("Granted to others than the owner:");
    let grants = session.query(GRANTS, &[])?;
    if grants.is_empty() {
        out("  nothing");
    }
    for row in grants {
        let (grantee, what, privileges): (&str, &str, &str) =
            (row.get(0)?, row.get(1)?, row.get(2)?);
        out(&format!("  {grantee:<16} {privileges:<16} on {what}"));
    }
    Ok(())
}

/// What to do about what went wrong.
fn with_advice(error: Error, options: &Options) -> Failure {
    let advice = match (error.kind(), error.sqlstate()) {
        (ErrorKind::Server, "42501") if options.remove || options.purge.is_some() => {
            "connect as the ledger's owner or as a superuser"
        }
        (_, "42501") => {
            "connect as the database's owner or as a superuser; or have one run the SQL of \
             `segue setup --print`"
        }
        (_, "42704") => "create the role first, or give another one with --role",
        (_, "2BP01") => "something that is not Segue's depends on the ledger; remove that first",
        (_, "25006") => {
            "the server is read only; name the primary too, or mend default_transaction_read_only"
        }
        (ErrorKind::Connect | ErrorKind::Tls | ErrorKind::Authentication, _)
        | (ErrorKind::FailoverTimeout, _) => "`segue check` looks at every server by itself",
        _ => "",
    };
    let state = match error.outcome() {
        Outcome::NotCommitted => "; nothing was changed",
        _ => "",
    };
    let text = crate::output::chain(&error);
    let end = if text.contains("nothing was") { "" } else { state };
    let code = match error.server_error() {
        Some(server) if error.kind() == ErrorKind::Server => format!(" (SQLSTATE {})", server.code),
        _ => String::new(),
    };
    let separator = if advice.is_empty() { "" } else { ". What to do: " };
    format!("{text}{code}{end}{separator}{advice}").into()
}
