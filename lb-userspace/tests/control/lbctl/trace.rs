//! `lbctl trace`.

use lb::api::Refusal;

use crate::fake::Running;

const LINE: &str = "2023-11-14T22:13:20.123456Z uplink TCP 198.18.0.2:40000 → 203.0.113.10:443, syn, 40 bytes: \
                    to_backend web1 (198.18.1.2:443)\n";

#[tokio::test]
async fn packets_are_shown_until_there_were_enough() {
    let running = Running::start();
    let ended = running.lbctl("trace --count 3").await;
    assert_eq!((ended.code, &*ended.stdout), (0, &*LINE.repeat(3)));
    assert_eq!(ended.stderr, "3 packets, 5 more were left out\n");
    let calls = running.fake.calls();
    let begin = r#"trace {"session":null,"end":false,"filter":{"host":null,"port":null,"protocol":null,"family":null,"outcomes":[]},"rate":null}"#;
    assert_eq!(calls.first().unwrap(), begin);
    assert_eq!(calls.len(), 4);
    assert!(
        calls.last().unwrap().contains(r#""session":77,"end":true"#),
        "{calls:?}"
    );
}

#[tokio::test]
async fn options_come_through() {
    let running = Running::start();
    let mut command = super::command(&running.socket, "trace --verbose --count 1 --rate 7");
    let filter = "udp ip6 host 2001:db8::2 port 53 outcome not_ours";
    let output = command.args(["--filter", filter]).output().await.unwrap();
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        format!("{LINE}  service: www\n")
    );
    let begin = r#"trace {"session":null,"end":false,"filter":{"host":"2001:db8::2","port":53,"protocol":"udp","family":6,"outcomes":["not_ours"]},"rate":7}"#;
    assert_eq!(running.fake.calls().first().unwrap(), begin);
}

#[tokio::test]
async fn packets_as_json_are_a_line_each() {
    let running = Running::start();
    let lines = running.page("--json trace --count 2").await;
    let packets: Vec<serde_json::Value> = lines
        .lines()
        .map(|it| serde_json::from_str(it).unwrap())
        .collect();
    assert_eq!(packets.len(), 2);
    assert_eq!(packets[1]["outcome"], "to_backend");
}

#[tokio::test]
async fn a_capture_goes_to_a_file_or_to_the_output() {
    let running = Running::start();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("trace.pcapng");
    let ended = running
        .lbctl(&format!("trace --count 2 --pcapng {}", file.display()))
        .await;
    assert_eq!((ended.code, &*ended.stdout), (0, ""), "{ended:?}");
    let written = std::fs::read(&file).unwrap();
    // A section header block's type.
    assert_eq!(written[..4], [0x0a, 0x0d, 0x0d, 0x0a]);
    let output = super::command(&running.socket, "trace --count 2 --pcapng -")
        .output()
        .await;
    assert_eq!(output.unwrap().stdout, written);

    let nowhere = running
        .lbctl("trace --count 2 --pcapng /nowhere/trace.pcapng")
        .await;
    assert_eq!(nowhere.code, 1);
    assert!(
        nowhere
            .stderr
            .starts_with("lbctl: /nowhere/trace.pcapng: cannot write there: ")
    );
}

#[tokio::test]
async fn what_goes_wrong_is_said() {
    let running = Running::start();
    let typed = running.lbctl("trace --filter sctp").await;
    assert_eq!(typed.code, 2);
    assert!(typed.stderr.contains("expected tcp, udp, icmp"), "{typed:?}");
    running.fake.state().refusal = Some(Refusal::Conflict("somebody traces already".to_owned()));
    let busy = running.lbctl("trace").await;
    assert_eq!(
        (busy.code, &*busy.stderr),
        (1, "lbctl: somebody traces already\n")
    );
}
