//! The journal of sessions on a file system that is full, or read-only.

use segue::{Client, ErrorKind, Outcome};
use segue_testkit::SmallDisk;

use crate::harness::{Stand, in_flight, server};

/// `None`, and the reason is printed, where nothing may be mounted.
fn disk() -> Option<SmallDisk> {
    match SmallDisk::create(2 << 20) {
        Ok(disk) => Some(disk),
        Err(error) => {
            println!("skipped: {error}");
            None
        }
    }
}

fn conninfo(disk: &SmallDisk, name: &str, options: &str) -> String {
    let dir = disk.path().join(name);
    format!("{} journal=file journal_dir={} {options}", server().conninfo(), dir.display())
}

#[test]
fn a_full_disk_takes_the_journal_from_a_transaction_or_refuses_it() {
    let Some(disk) = disk() else { return };
    for (name, options) in [
        ("none", "journal_sync=none"),
        ("batch", "journal_sync=batch"),
        ("required", "journal_sync=batch journal_required=on"),
    ] {
        let stand = Stand::new();
        let client = Client::connect(&conninfo(&disk, name, options)).unwrap();
        let mut session = client.session().unwrap();
        let insert = format!("INSERT INTO {} VALUES ($1, $2)", stand.table);
        session.execute(&insert, &[&1_i64, &"small"]).unwrap();
        assert_eq!(session.status().protection_lost, None);
        disk.fill().unwrap();
        // More than what was prepared ahead has room for.
        let done = session.execute(&insert, &[&2_i64, &"x".repeat(400_000)]);
        let lost = session.status().protection_lost;
        assert!(lost.is_some_and(|it| it.starts_with("journal_no_space")), "{name}");
        if name == "required" {
            let error = done.expect_err("it is refused");
            assert_eq!(error.outcome(), Outcome::NotCommitted, "{error}");
            assert!(error.to_string().contains("journal_no_space"), "{error}");
            assert_eq!(stand.ids(), [1]);
        } else {
            done.unwrap();
            assert_eq!(stand.ids(), [1, 2]);
        }
        disk.free().unwrap();
        let mut tx = session.transaction().unwrap();
        tx.execute(&insert, &[&3_i64, &"y".repeat(100_000)]).unwrap();
        tx.commit().unwrap();
        assert_eq!(session.status().protection_lost, None, "{name}: there is room again");
        assert_eq!(stand.ids().last(), Some(&3));
        drop((session, client));
        assert!(in_flight(&disk.path().join(name)).is_empty());
        std::fs::remove_dir_all(disk.path().join(name)).unwrap();
    }
}

#[test]
fn a_read_only_disk_is_told_by_name() {
    let Some(disk) = disk() else { return };
    let stand = Stand::new();
    let conninfo = conninfo(&disk, "j", "");
    drop(Client::connect(&conninfo).unwrap());
    disk.set_read_only(true).unwrap();
    let error = Client::connect(&conninfo).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.to_string().contains("journal_read_only"), "{error}");
    disk.set_read_only(false).unwrap();
    let client = Client::connect(&conninfo).unwrap();
    let mut session = client.session().unwrap();
    session.execute(&stand.insert(1), &[]).unwrap();
    assert_eq!(session.status().protection_lost, None);
    assert_eq!(stand.ids(), [1]);
}
