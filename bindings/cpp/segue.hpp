// Segue for C++17: connections to PostgreSQL that outlive their server. Header-only, over <segue.h>.
//
//     #include <segue.hpp>
//
//     segue::client client{"host=db1,db2 dbname=shop"};
//     segue::session session = client.open_session();
//     for (auto [id, name] : session.query("SELECT id, name FROM item WHERE price < $1", 10).as<int,
//     std::string>()) {
//         std::cout << id << ' ' << name << '\n';
//     }
//     client.transact([](segue::transaction& tx) { tx.execute("UPDATE item SET price = price + 1"); });
//
// Handles are move-only and free themselves, in any order; `.handle()` gives what the C interface takes.
// A moved-from handle may be destroyed or assigned to; any other call on it throws invalid_argument.
// A client may be used by any thread, a session and what it has opened by one at a time.
// Failures are exceptions (segue/error.hpp). docs/cpp.md is the guide; the headers are the reference:
//
//     client.hpp       client, options                     transaction.hpp  transaction, transact()
//     session.hpp      session, statement, pipeline, ...   result.hpp       result, batch; row.hpp: row
//     stream.hpp       row_stream                          values.hpp       what values can be read as
//     copy.hpp         copy_in, copy_out                   params.hpp       what can be a parameter
//     event.hpp        event, subscription                 status.hpp       snapshots, dead letters
//     submission.hpp   transactions handed over whole      ticket.hpp       what becomes of them
//     recovery.hpp     what an earlier process had in flight
#ifndef SEGUE_HPP
#define SEGUE_HPP

#if defined(_MSVC_LANG) ? _MSVC_LANG < 201703L : __cplusplus < 201703L
#error "segue.hpp needs C++17"
#endif

#include "segue/client.hpp"
#include "segue/copy.hpp"
#include "segue/error.hpp"
#include "segue/event.hpp"
#include "segue/params.hpp"
#include "segue/recovery.hpp"
#include "segue/result.hpp"
#include "segue/session.hpp"
#include "segue/status.hpp"
#include "segue/stream.hpp"
#include "segue/submission.hpp"
#include "segue/ticket.hpp"
#include "segue/transaction.hpp"
#include "segue/values.hpp"

#endif
