//! `lbctl why`.

use crate::fake::Running;
use lb::api::Refusal;

#[tokio::test]
async fn decisions_are_shown_a_line_each() {
    let running = Running::start();
    let page = running.page("why tcp 198.18.0.2:40000 203.0.113.10:443").await;
    let expected = "\
packet       TCP 198.18.0.2:40000 → 203.0.113.10:443, syn, 40 bytes
comes in by  uplink
service      www (tcp 203.0.113.10:443)
connection   none
slot         2 of 2, next in the round: web2 (198.18.2.2:443)
action       redirect

to_backend: A client's packet went to its backend.
";
    assert_eq!(page, expected);
    let json = running.json("why tcp 198.18.0.2:40000 203.0.113.10:443").await;
    assert_eq!(json["decisions"][1]["about"], "connection");
    assert_eq!(json["outcome"], "to_backend");
}

#[tokio::test]
async fn every_option_comes_through() {
    let running = Running::start();
    let asked = async |arguments: &str| {
        running.page(arguments).await;
        running.last_call()
    };
    assert_eq!(
        asked("why udp [2001:db8::2]:40000 [2001:db8:ffff::10]:53").await,
        r#"why {"protocol":"udp","client":"[2001:db8::2]:40000","vip":"[2001:db8:ffff::10]:53","flags":null,"from_backend":false,"backend":null,"interface":null,"length":null}"#
    );
    assert_eq!(
        asked("why tcp 198.18.0.2:40000 203.0.113.10:443 --syn --ack --from-backend --interface uplink --length 1500")
            .await,
        r#"why {"protocol":"tcp","client":"198.18.0.2:40000","vip":"203.0.113.10:443","flags":"syn,ack","from_backend":true,"backend":null,"interface":"uplink","length":1500}"#
    );
    let named = asked("why tcp 198.18.0.2:40000 203.0.113.10:443 --fin --rst --from-backend web1").await;
    assert!(
        named.contains(r#""flags":"fin,rst","from_backend":true,"backend":"web1""#),
        "{named}"
    );
}

#[tokio::test]
async fn what_is_typed_wrong_is_said() {
    let running = Running::start();
    for (arguments, says) in [
        (
            "why sctp 198.18.0.2:40000 203.0.113.10:443",
            "expected tcp or udp",
        ),
        ("why tcp 198.18.0.2 203.0.113.10:443", "expected ADDRESS:PORT"),
        ("why tcp 198.18.0.2:40000 www:443", "expected ADDRESS:PORT"),
    ] {
        let ended = running.lbctl(arguments).await;
        assert_eq!(ended.code, 2, "{ended:?}");
        assert!(ended.stderr.contains(says), "{ended:?}");
    }
    running.fake.state().refusal = Some(Refusal::Unknown(
        "no service listens on 203.0.113.10:444".to_owned(),
    ));
    let ended = running.lbctl("why tcp 198.18.0.2:40000 203.0.113.10:444").await;
    assert_eq!(
        (ended.code, &*ended.stderr),
        (4, "lbctl: no service listens on 203.0.113.10:444\n")
    );
}
