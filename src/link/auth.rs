//! Authentication, as pure bytes in and bytes out: SCRAM-SHA-256 with and without channel
//! binding, and the weak methods where the configuration allows them.
//!
//! Never answers a method that the configuration does not allow, never takes the server's word
//! for a success that an exchange under way has not proven, and never puts a secret into an error.

use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::{md5_hash, sasl};
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;

use super::channel_binding;
use crate::config::{AuthMethods, ChannelBinding, Config, Host};
use crate::error::{Error, ErrorKind, Result};
use crate::wire::frame::Frame;

/// What the server has asked for so far.
enum State {
    /// Nothing yet: a server that lets the user in now trusts it.
    Start,
    /// A SCRAM exchange that the server has yet to prove itself in.
    Scram {
        exchange: Box<sasl::ScramSha256>,
        method: &'static str,
    },
    /// Everything that there is to check has been checked.
    Answered {
        method: &'static str,
    },
    Done {
        method: &'static str,
    },
}

/// One authentication exchange.
pub(super) struct Authenticator<'a> {
    config: &'a Config,
    host: &'a Host,
    /// The server's certificate in DER; `None` where the link is not encrypted.
    certificate: Option<&'a [u8]>,
    encrypted: bool,
    state: State,
}

impl<'a> Authenticator<'a> {
    pub(super) fn new(
        config: &'a Config,
        host: &'a Host,
        encrypted: bool,
        certificate: Option<&'a [u8]>,
    ) -> Self {
        Self { config, host, certificate, encrypted, state: State::Start }
    }

    /// The method that let the user in, once the server has said so.
    pub(super) fn method(&self) -> Option<&'static str> {
        match self.state {
            State::Done { method } => Some(method),
            _ => None,
        }
    }

    /// Takes an Authentication message and appends the answer, if there is one, to `out`.
    pub(super) fn handle(&mut self, frame: &Frame, out: &mut BytesMut) -> Result<()> {
        let message = frame.parse().map_err(|e| {
            refusal(self.host, "asked for an authentication method that is not known")
                .with_source(e)
        })?;
        match message {
            Message::AuthenticationOk => self.handle_ok(),
            Message::AuthenticationSasl(body) => {
                let mechanisms: Vec<String> =
                    body.mechanisms().map(|name| Ok(name.to_owned())).collect().map_err(|e| {
                        refusal(self.host, "sent a malformed list of SASL mechanisms")
                            .with_source(e)
                    })?;
                self.handle_sasl(&mechanisms, out)
            }
            Message::AuthenticationSaslContinue(body) => {
                let State::Scram { exchange, .. } = &mut self.state else {
                    return Err(out_of_turn(self.host));
                };
                exchange
                    .update(body.data())
                    .map_err(|e| refusal(self.host, "broke the rules of SCRAM").with_source(e))?;
                frontend::sasl_response(exchange.message(), out).map_err(|e| {
                    refusal(self.host, "sent a SCRAM challenge that cannot be answered")
                        .with_source(e)
                })
            }
            Message::AuthenticationSaslFinal(body) => {
                let State::Scram { exchange, method } = &mut self.state else {
                    return Err(out_of_turn(self.host));
                };
                exchange.finish(body.data()).map_err(|e| {
                    refusal(
                        self.host,
                        "could not prove that it knows the password; it may be an impostor",
                    )
                    .with_source(e)
                })?;
                self.state = State::Answered { method };
                Ok(())
            }
            Message::AuthenticationMd5Password(body) => {
                self.check_required("asks for md5", |m| m.md5)?;
                self.begin_weak(
                    self.config.allow_md5_password,
                    "an MD5 password; set password_encryption and the role's password to \
                     scram-sha-256 on the server, or allow_md5_password=on here",
                )?;
                let hash =
                    md5_hash(self.config.user.as_bytes(), self.password()?.as_bytes(), body.salt());
                self.state = State::Answered { method: "md5" };
                self.put_password(hash.as_bytes(), out)
            }
            Message::AuthenticationCleartextPassword => {
                self.check_required("asks for password", |m| m.password)?;
                self.begin_weak(
                    self.config.allow_cleartext_password,
                    "the password in the clear; use scram-sha-256 in its pg_hba.conf, or \
                     allow_cleartext_password=on here",
                )?;
                let password = self.password()?;
                self.state = State::Answered { method: "password" };
                self.put_password(password.as_bytes(), out)
            }
            Message::AuthenticationGss
            | Message::AuthenticationGssContinue(_)
            | Message::AuthenticationSspi
            | Message::AuthenticationKerberosV5 => Err(refusal(
                self.host,
                "asks for GSSAPI, SSPI or Kerberos, which Segue does not speak; use scram-sha-256 \
                 or cert in its pg_hba.conf",
            )),
            _ => Err(refusal(self.host, "asks for an authentication method that is not supported")),
        }
    }

    fn handle_ok(&mut self) -> Result<()> {
        let method = match self.state {
            State::Start => {
                self.check_required("let the user in without asking for anything", |m| m.none)?;
                "trust"
            }
            State::Answered { method } => method,
            State::Scram { .. } => {
                return Err(refusal(
                    self.host,
                    "ended the SCRAM exchange without proving that it knows the password; it may \
                     be an impostor",
                ));
            }
            State::Done { .. } => return Err(out_of_turn(self.host)),
        };
        if self.config.channel_binding == ChannelBinding::Require
            && method != sasl::SCRAM_SHA_256_PLUS
        {
            return Err(refusal(
                self.host,
                "let the user in without channel binding, which channel_binding=require demands",
            ));
        }
        self.state = State::Done { method };
        Ok(())
    }

    fn handle_sasl(&mut self, mechanisms: &[String], out: &mut BytesMut) -> Result<()> {
        if !matches!(self.state, State::Start) {
            return Err(out_of_turn(self.host));
        }
        self.check_required("asks for scram-sha-256", |m| m.scram_sha_256)?;
        let offers = |name: &str| mechanisms.iter().any(|offered| offered == name);
        let plus = offers(sasl::SCRAM_SHA_256_PLUS);
        if plus && !self.encrypted {
            return Err(refusal(
                self.host,
                "offers channel binding on a link that is not encrypted; something stands between",
            ));
        }
        let wanted = self.config.channel_binding != ChannelBinding::Disable && self.encrypted;
        let binding =
            self.certificate.filter(|_| wanted).and_then(channel_binding::tls_server_end_point);
        let (method, binding) = match binding {
            Some(hash) if plus => {
                (sasl::SCRAM_SHA_256_PLUS, sasl::ChannelBinding::tls_server_end_point(hash))
            }
            _ if self.config.channel_binding == ChannelBinding::Require => {
                return Err(refusal(
                    self.host,
                    if !self.encrypted {
                        "was reached without TLS, so that channel_binding=require cannot be met; \
                         use sslmode=verify-full"
                    } else if plus {
                        "has a certificate for which no channel binding is defined, but \
                         channel_binding=require demands one; sign it with RSA or ECDSA"
                    } else {
                        "does not offer SCRAM-SHA-256-PLUS, which channel_binding=require demands"
                    },
                ));
            }
            // "I could, you did not offer": lets the server notice that somebody took the offer away.
            Some(_) => (sasl::SCRAM_SHA_256, sasl::ChannelBinding::unrequested()),
            None => (sasl::SCRAM_SHA_256, sasl::ChannelBinding::unsupported()),
        };
        if !offers(method) {
            return Err(refusal(
                self.host,
                "offers no SASL mechanism that Segue speaks; it speaks SCRAM-SHA-256 and \
                 SCRAM-SHA-256-PLUS",
            ));
        }
        let exchange = sasl::ScramSha256::new(self.password()?.as_bytes(), binding);
        frontend::sasl_initial_response(method, exchange.message(), out)
            .map_err(|e| refusal(self.host, "cannot be answered").with_source(e))?;
        self.state = State::Scram { exchange: Box::new(exchange), method };
        Ok(())
    }

    /// Checks that `require_auth` allows what the server does.
    fn check_required(&self, what: &str, allows: fn(&AuthMethods) -> bool) -> Result<()> {
        match &self.config.require_auth {
            Some(methods) if !allows(methods) => {
                Err(refusal(self.host, &format!("{what}, which require_auth excludes")))
            }
            _ => Ok(()),
        }
    }

    /// Checks that a weak method may be answered at this point.
    fn begin_weak(&self, allowed: bool, what: &str) -> Result<()> {
        if !matches!(self.state, State::Start) {
            return Err(out_of_turn(self.host));
        }
        if self.config.channel_binding == ChannelBinding::Require {
            return Err(refusal(
                self.host,
                "asks for a password without channel binding, which channel_binding=require demands",
            ));
        }
        if !allowed {
            return Err(refusal(self.host, &format!("asks for {what}")));
        }
        Ok(())
    }

    fn password(&self) -> Result<&'a str> {
        let password = self.host.password.as_ref().or(self.config.password.as_ref());
        password.map(|secret| secret.reveal()).filter(|text| !text.is_empty()).ok_or_else(|| {
            refusal(
                self.host,
                "asks for a password and none was given; set password=, PGPASSWORD or a line in \
                 the password file",
            )
        })
    }

    fn put_password(&self, password: &[u8], out: &mut BytesMut) -> Result<()> {
        frontend::password_message(password, out).map_err(|_| {
            Error::new(
                ErrorKind::Config,
                "the password contains a zero byte, which PostgreSQL cannot take",
            )
        })
    }
}

fn refusal(host: &Host, what: &str) -> Error {
    Error::new(ErrorKind::Authentication, format!("the server at {host} {what}"))
}

fn out_of_turn(host: &Host) -> Error {
    refusal(host, "sent an authentication message out of turn")
}
