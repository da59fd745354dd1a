//! Members of a group, asked of a broker that is alone.

use escrowmq_common::body::json::from_slice;
use escrowmq_common::body::{GroupMembers, MemberRole};
use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;

use super::support::Bench;

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_alone_leads_itself_and_has_no_members_to_change() {
    let bench = Bench::start().await;
    let shown = bench.done(Frame::request(request::GET_MEMBERS)).await;
    let group: GroupMembers = from_slice(&shown.body).unwrap();
    assert_eq!((group.group.as_str(), group.leader.as_deref(), group.changing), ("broker-a", Some("n0"), false));
    let [member] = &group.members[..] else { panic!("{group:?}") };
    assert_eq!((member.role, member.lag, member.reachable), (MemberRole::Leader, Some(0), true));
    assert_eq!(member.build.as_deref(), Some(env!("CARGO_PKG_VERSION")));
    for (code, seat, answered, why) in [
        (request::ADD_MEMBER, "n1-127.0.0.1:1", response::ILLEGAL_OPERATION, "needs dLegerPeers"),
        (request::ADD_MEMBER, "n1", response::INVALID_PARAMETER, "n0-host:port"),
        (request::PROMOTE_MEMBER, "n1", response::ILLEGAL_OPERATION, "needs dLegerPeers"),
        (request::REMOVE_MEMBER, "n0", response::ILLEGAL_OPERATION, "needs dLegerPeers"),
        (request::TRANSFER_LEADER, "n1", response::ILLEGAL_OPERATION, "no other voter"),
    ] {
        let answer = bench.call(Frame::request(code).with_field("seat", seat)).await;
        let remark = answer.remark.unwrap_or_default();
        assert!(answer.code == answered && remark.contains(why), "{code} {seat}: {} {remark}", answer.code);
    }
    bench.broker.stop().await.unwrap();
}
