//! What was executed comes back, and can be executed again.

use std::io::Write;

use postgres_protocol::message::frontend;
use segue::journal::{Form, Record, Statement};
use segue::{RecoveredStatement, RecoveredTransaction, ToSql};

use crate::harness::{INSERT, Past, count, name, only, request, server};

fn all(it: &RecoveredTransaction) -> Vec<RecoveredStatement> {
    it.statements().collect::<Result<_, _>>().unwrap()
}

#[test]
fn a_transaction_is_run_again_from_what_the_journal_has() {
    let mut past = Past::new();
    let (first, second, third) = (name(), name(), name());
    let owner = past.began(false);
    // Binary, text and NULL, two executions in one request.
    let sql = "INSERT INTO t (id, note) VALUES ($1, $2)";
    let executions: [&[Option<&[u8]>]; 2] =
        [&[Some(first.as_bytes()), Some(&[0, 1, 255])], &[Some(second.as_bytes()), None]];
    let bytes = request(&[0, 1], &executions);
    let statement =
        Statement { form: Form::Extended, sql, param_oids: vec![25, 17].into(), request: &bytes };
    let owner = past.write(Some(owner), &Record::Statement(statement));
    let simple = format!("INSERT INTO t (id) VALUES ('{third}')");
    let statement =
        Statement { form: Form::Simple, sql: &simple, param_oids: vec![].into(), request: b"" };
    past.write(Some(owner), &Record::Statement(statement));
    past.leave();

    let client = past.client("");
    let found = only(client.recover().unwrap());
    let statements = all(&found);
    assert_eq!(statements.len(), 3);
    assert_eq!((&*statements[0].sql, &*statements[0].types), (sql, &[25, 17][..]));
    assert_eq!(statements[0].formats, [0, 1]);
    assert_eq!(statements[0].parameters[1].as_deref(), Some(&[0, 1, 255][..]));
    assert_eq!(statements[1].parameters[1], None);
    assert!(statements[2].simple && statements[2].parameters.is_empty());
    let shown = format!("{:?} {found:?}", statements[0]);
    assert!(!shown.contains("INSERT") && !shown.contains(&first), "{shown}");

    let mut session = client.session().unwrap();
    let mut transaction = session.transaction().unwrap();
    for it in &statements {
        let values = it.values();
        let values: Vec<&dyn ToSql> = values.iter().map(|value| value as _).collect();
        assert_eq!(transaction.execute(&*it.sql, &values).unwrap(), 1);
    }
    transaction.commit().unwrap();
    found.done().unwrap();
    for id in [&first, &second, &third] {
        assert_eq!(count(server(), id), 1);
    }
    let note = format!("SELECT note FROM t WHERE id = '{first}'");
    assert_eq!(server().value(&note).unwrap(), "\\x0001ff");
    assert!(client.recover().unwrap().is_empty());
}

/// COPY data follows its statement in records of their own, cut anywhere.
#[test]
fn the_data_of_a_copy_comes_back_whole() {
    let mut past = Past::new();
    let id = name();
    let mut request = request(&[], &[&[]]);
    let mut data = bytes::BytesMut::new();
    let rows: Vec<String> = (0..3000).map(|row| format!("{id}\t\\\\x{row:04x}\n")).collect();
    for row in &rows {
        frontend::CopyData::new(row.as_bytes()).unwrap().write(&mut data);
    }
    frontend::copy_done(&mut data);
    request.extend_from_slice(&data[..10]);
    let sql = "COPY t FROM STDIN";
    let statement =
        Statement { form: Form::Extended, sql, param_oids: vec![].into(), request: &request };
    let mut owner = past.write(Some(past.began(true)), &Record::Statement(statement));
    for piece in data[10..].chunks(997) {
        owner = past.write(Some(owner), &Record::StatementData(piece));
    }
    past.statement(owner, INSERT, &[Some(b"behind")]);
    past.leave();

    let client = past.client("");
    let statements = all(&only(client.recover().unwrap()));
    assert_eq!(statements.len(), 2);
    assert_eq!(statements[0].copy_data, rows.concat());
    assert!(statements[1].copy_data.is_empty());
    let mut session = client.session().unwrap();
    let mut copy = session.copy_in(&statements[0].sql).unwrap();
    copy.write_all(&statements[0].copy_data).unwrap();
    copy.finish().unwrap();
    assert_eq!(count(server(), &id), 3000);
}

/// Of a COPY outside a transaction the journal has the number of its commit before the data are sent, which are
/// not waited for. Where nothing of them was kept it was given back as if it had had none, and
/// whoever ran it again lost them without a word. Found by the simulation.
#[test]
fn a_copy_without_its_end_is_told() {
    let mut past = Past::new();
    let mut cut = bytes::BytesMut::new();
    frontend::CopyData::new(&b"some\n"[..]).unwrap().write(&mut cut);
    for data in [&b""[..], &cut] {
        let request = [&request(&[], &[&[]])[..], data].concat();
        let sql = "COPY t FROM STDIN";
        let statement =
            Statement { form: Form::Extended, sql, param_oids: vec![].into(), request: &request };
        past.write(Some(past.began(true)), &Record::Statement(statement));
    }
    past.leave();
    for it in past.client("").recover().unwrap() {
        let error = it.statements().next().unwrap().unwrap_err();
        assert!(error.to_string().contains("not complete"), "{error}");
    }
}

/// The last of the data was never written.
#[test]
fn a_statement_that_is_cut_short_is_told() {
    let mut past = Past::new();
    let whole = request(&[], &[&[Some(b"x")]]);
    let cut = &whole[..whole.len() - 3];
    let sql = INSERT;
    let statement =
        Statement { form: Form::Extended, sql, param_oids: vec![25].into(), request: cut };
    let owner = past.statement(past.began(true), INSERT, &[Some(b"first")]);
    past.write(Some(owner), &Record::Statement(statement));
    past.leave();
    let found = only(past.client("").recover().unwrap());
    let statements: Vec<_> = found.statements().collect();
    assert_eq!(statements.len(), 2);
    assert!(statements[0].is_ok());
    let error = statements[1].as_ref().unwrap_err().to_string();
    assert!(error.contains("not complete"), "{error}");
}
