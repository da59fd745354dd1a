//! Both sides of the handshake, over a socket that nothing was sent on.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use escrowmq_common::frame::Frame;
use tokio::net::TcpStream;

use super::greeting::{Greeting, GreetingError, VERSION};
use super::hello::{Hello, Lane, Target};
use super::proof::{Greetings, Role, is_proven, nonce, prove};
use super::refusal::{Reason, Refusal};
use super::shared::Identity;
use super::socket;
use super::wire::{End, FRAME_BYTES_MAX, Wire};

/// Codes of requests between members.
pub(super) mod code {
    /// A greeting; answered by the greeting of the other side.
    pub(in crate::peer) const HELLO: i32 = 1;
    /// A proof; answered by that of the other side.
    pub(in crate::peer) const PROOF: i32 = 2;
    /// What a caller sends; answered by what `Serve` gives.
    pub(in crate::peer) const REQUEST: i32 = 3;
    /// Of an answer that is none of these refusals: 0. Others are numbers of reasons.
    pub(in crate::peer) const FINE: i32 = 0;
}

/// Most bytes of a frame of the handshake.
pub(super) const HANDSHAKE_FRAME_BYTES_MAX: usize = 4096;

/// Why a handshake failed.
#[derive(Debug)]
pub(super) enum Fault {
    /// One side refuses the other, and both know it or will.
    Refused(Refusal),
    /// The connection ended, or what came was no handshake.
    Ended(End),
}

impl From<End> for Fault {
    fn from(end: End) -> Fault {
        Fault::Ended(end)
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Fault {
        Fault::Refused(refusal)
    }
}

/// A connection whose other side is known.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) wire: Wire,
    pub(super) hello: Arc<Hello>,
    pub(super) lane: Lane,
}

/// The side that opened the connection.
pub(super) async fn ask(stream: TcpStream, ours: &Identity, target: &Target, lane: Lane) -> Result<Known, Fault> {
    socket::prepare(&stream, lane).map_err(End::Io)?;
    let address = stream.peer_addr().map_err(End::Io)?;
    check_guarded(ours, address)?;
    let mut wire = Wire::new(stream, HANDSHAKE_FRAME_BYTES_MAX);
    let our_greeting = greet(ours, lane)?;
    wire.send(Frame::request(code::HELLO).with_body(our_greeting.clone())).await?;
    let their_greeting = answer_to(&mut wire).await?;
    let theirs = read_greeting(&their_greeting)?;
    if theirs.lane != lane {
        return Err(End::Unexpected("a greeting for another lane").into());
    }
    check_first(ours, &theirs)?;
    if !target.is(&theirs.hello) {
        let text = format!(
            "at {address} answers node {} with the seat '{}', and {target} was meant. A member whose folder was emptied takes its \
             seat again within seconds; if this goes on, correct dLegerPeers or dLegerSelfId",
            theirs.hello.node, theirs.hello.seat
        );
        return Err(Refusal::new(Reason::OtherMember, text).into());
    }
    let greetings = Greetings { dialer: &our_greeting, listener: &their_greeting };
    wire.send(Frame::request(code::PROOF).with_body(our_proof(ours, Role::Dialer, greetings))).await?;
    let proof = answer_to(&mut wire).await?;
    check_proof(ours, Role::Listener, greetings, &proof)?;
    check_last(ours, &theirs.hello)?;
    wire.set_frame_bytes_max(FRAME_BYTES_MAX);
    Ok(Known { wire, hello: Arc::new(theirs.hello), lane })
}

/// The side that was listening. A refusal is sent to the other side before it is answered here.
pub(super) async fn answer(stream: TcpStream, ours: &Identity) -> Result<Known, Fault> {
    // Until the lane is known: a stranger gets the shorter patience.
    socket::prepare(&stream, Lane::Pulse).map_err(End::Io)?;
    let address = stream.peer_addr().map_err(End::Io)?;
    let mut wire = Wire::new(stream, HANDSHAKE_FRAME_BYTES_MAX);
    match try_answer(&mut wire, ours, address).await {
        Ok((hello, lane)) => {
            socket::prepare(wire.stream(), lane).map_err(End::Io)?;
            wire.set_frame_bytes_max(FRAME_BYTES_MAX);
            Ok(Known { wire, hello: Arc::new(hello), lane })
        }
        Err((opaque, Fault::Refused(refusal))) => {
            refuse(&mut wire, opaque, &refusal).await;
            Err(Fault::Refused(refusal))
        }
        Err((_, fault)) => Err(fault),
    }
}

/// Tells the other side why, if it still listens.
pub(super) async fn refuse(wire: &mut Wire, opaque: i32, refusal: &Refusal) {
    let request = Frame { opaque, ..Frame::request(code::HELLO) };
    let answer = Frame::response(&request, refusal.reason as i32).with_remark(refusal.text.clone());
    // It will find out by the end of the connection otherwise.
    let _ = wire.send(answer).await;
}

/// A fault goes with the number of the request that it answers.
async fn try_answer(wire: &mut Wire, ours: &Identity, address: SocketAddr) -> Result<(Hello, Lane), (i32, Fault)> {
    let request = request(wire, code::HELLO).await.map_err(|end| (0, end.into()))?;
    let at_hello = |fault: Fault| (request.opaque, fault);
    check_guarded(ours, address).map_err(|refusal| at_hello(refusal.into()))?;
    let their_greeting = request.body.clone();
    let theirs = read_greeting(&their_greeting).map_err(at_hello)?;
    check_first(ours, &theirs).map_err(|refusal| at_hello(refusal.into()))?;
    let our_greeting = greet(ours, theirs.lane).map_err(at_hello)?;
    let answer = Frame::response(&request, code::FINE).with_body(our_greeting.clone());
    wire.send(answer).await.map_err(|end| at_hello(end.into()))?;

    let greetings = Greetings { dialer: &their_greeting, listener: &our_greeting };
    let proof = self::request(wire, code::PROOF).await.map_err(|end| at_hello(end.into()))?;
    let at_proof = |fault: Fault| (proof.opaque, fault);
    check_proof(ours, Role::Dialer, greetings, &proof.body).map_err(|refusal| at_proof(refusal.into()))?;
    check_last(ours, &theirs.hello).map_err(|refusal| at_proof(refusal.into()))?;
    let answer = Frame::response(&proof, code::FINE).with_body(our_proof(ours, Role::Listener, greetings));
    wire.send(answer).await.map_err(|end| at_proof(end.into()))?;
    Ok((theirs.hello, theirs.lane))
}

async fn request(wire: &mut Wire, code: i32) -> Result<Frame, End> {
    let frame = wire.receive().await?;
    if frame.is_response() || frame.code != code {
        return Err(End::Unexpected("this is no handshake of a member"));
    }
    Ok(frame)
}

async fn answer_to(wire: &mut Wire) -> Result<Bytes, Fault> {
    let frame = wire.receive().await?;
    if !frame.is_response() {
        return Err(End::Unexpected("this is no answer of a member").into());
    }
    if frame.code != code::FINE {
        return Err(Refusal::received(frame.code, frame.remark.as_deref()).into());
    }
    Ok(frame.body)
}

fn greet(ours: &Identity, lane: Lane) -> Result<Bytes, Fault> {
    let nonce = nonce().map_err(End::Io)?;
    let greeting = Greeting { lane, has_secret: ours.secret.is_some(), nonce, hello: Hello::clone(&ours.hello) };
    greeting.encode().map_err(|_| End::Us("a name of this member is too long to be sent").into())
}

fn read_greeting(bytes: &[u8]) -> Result<Greeting, Fault> {
    Greeting::decode(bytes).map_err(|error| match error {
        GreetingError::Version(version) => {
            let text = format!(
                "one member speaks version {version} of the protocol between members, the other version {VERSION}: \
                 install versions of EscrowMQ that go together"
            );
            Refusal::new(Reason::Version, text).into()
        }
        GreetingError::Malformed(_) => End::Unexpected("this is no greeting of a member").into(),
    })
}

/// Without a secret only this machine is talked to, whatever the settings say.
fn check_guarded(ours: &Identity, address: SocketAddr) -> Result<(), Refusal> {
    if ours.secret.is_some() || address.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    let text = format!(
        "'{}' has no group secret and talks to its own machine only, not to {address}: give all members the same group secret",
        ours.hello.seat
    );
    Err(Refusal::new(Reason::Secret, text))
}

/// What is looked at before anything is proven.
fn check_first(ours: &Identity, theirs: &Greeting) -> Result<(), Refusal> {
    let (our, their) = (&*ours.hello, &theirs.hello);
    if our.group != their.group {
        let text = format!(
            "'{}' belongs to the group '{}' and '{}' to the group '{}': correct dLegerGroup or dLegerPeers of one of them",
            our.seat, our.group, their.seat, their.group
        );
        return Err(Refusal::new(Reason::Group, text));
    }
    if ours.secret.is_some() != theirs.has_secret {
        let (has, has_none) = if theirs.has_secret { (their, our) } else { (our, their) };
        let text = format!(
            "'{}' has a group secret and '{}' has none: give all members of the group the same",
            has.seat, has_none.seat
        );
        return Err(Refusal::new(Reason::Secret, text));
    }
    if our.node == their.node {
        let text = format!(
            "both sides are node {}: an address in dLegerPeers of '{}' leads to itself, or two members run on copies of one folder",
            our.node, our.seat
        );
        return Err(Refusal::new(Reason::Itself, text));
    }
    Ok(())
}

/// What is looked at when it is proven who asks.
fn check_last(ours: &Identity, theirs: &Hello) -> Result<(), Refusal> {
    let our = &ours.hello;
    let (oldest, newest) =
        (our.formats.start().max(theirs.formats.start()), our.formats.end().min(theirs.formats.end()));
    if oldest > newest {
        let text = format!(
            "'{}' ({}) reads formats {} to {} of the log and '{}' ({}) formats {} to {}: upgrade the older one step by step",
            our.seat,
            our.build,
            our.formats.start(),
            our.formats.end(),
            theirs.seat,
            theirs.build,
            theirs.formats.start(),
            theirs.formats.end()
        );
        return Err(Refusal::new(Reason::Formats, text));
    }
    ours.gate.admit(theirs)
}

fn our_proof(ours: &Identity, role: Role, greetings: Greetings<'_>) -> Bytes {
    let proof = ours.secret.as_ref().map(|secret| prove(secret, role, greetings));
    proof.map_or_else(Bytes::new, |proof| Bytes::copy_from_slice(&proof))
}

/// That both have a secret, or none, was looked at before.
fn check_proof(ours: &Identity, role: Role, greetings: Greetings<'_>, proof: &[u8]) -> Result<(), Refusal> {
    match &ours.secret {
        Some(secret) if !is_proven(secret, role, greetings, proof) => {
            let text = format!(
                "'{}' and the member that it talks to have different group secrets: give all members the same",
                ours.hello.seat
            );
            Err(Refusal::new(Reason::Secret, text))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::secret::Secret;

    struct Open;

    impl crate::peer::Gate for Open {
        fn admit(&self, _hello: &Hello) -> Result<(), Refusal> {
            Ok(())
        }
    }

    #[test]
    fn without_a_secret_nobody_else_is_talked_to_wherever_a_name_leads() {
        let hello = Hello {
            group: "orders".to_owned(),
            node: 1,
            seat: "n0".to_owned(),
            incarnation: 1,
            build: String::new(),
            formats: 1..=1,
            feature_level: 1,
        };
        let mut ours = Identity { hello: Arc::new(hello), secret: None, gate: Arc::new(Open) };
        for local in ["127.0.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert_eq!(check_guarded(&ours, local.parse().unwrap()), Ok(()));
        }
        let refusal = check_guarded(&ours, "10.0.0.1:1".parse().unwrap()).unwrap_err();
        assert!(refusal.reason == Reason::Secret && refusal.text.contains("10.0.0.1:1"), "{refusal}");
        ours.secret = Some(Secret::new("0123456789abcdef").unwrap());
        assert_eq!(check_guarded(&ours, "10.0.0.1:1".parse().unwrap()), Ok(()));
    }
}
