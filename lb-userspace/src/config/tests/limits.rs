//! As much as is allowed and one more, in the file and at run time.

use super::{good, read};
use crate::config::*;

fn services(number: usize, backends: usize) -> String {
    let mut text = "[daemon]\ninterfaces = [\"eth0\"]\n".to_owned();
    for service in 0..number {
        text += &format!(
            "[[service]]\nname = \"s{service}\"\nvip = \"203.0.113.10\"\nport = {}\n",
            service + 1
        );
        for backend in 0..backends {
            let (high, low) = (backend / 256, backend % 256);
            text += &format!(
                "[[service.backend]]\nname = \"b{backend}\"\naddress = \"198.18.{high}.{low}\"\nport = {}\n",
                service / 8 + 1
            );
        }
    }
    text
}

#[test]
fn the_greatest_weights_of_the_most_backends_fit() {
    let all_alike = services(1, 4096).replace("\naddress", "\nweight = 256\naddress");
    let no_common_divisor = all_alike.replacen("weight = 256", "weight = 255", 1);
    assert!(read(&no_common_divisor).is_ok());
}

#[test]
fn more_slots_than_the_tables_hold() {
    let mut text = services(600, 1).replace("\nvip", "\nslow_start = \"30s\"\nvip");
    for service in 1..=6 {
        text += &format!(
            "[[service]]\nname = \"m{service}\"\nvip = \"203.0.113.11\"\nport = {service}\nscheduler = \"maglev\"\n"
        );
        for backend in 0..512 {
            let (high, low) = (backend / 256, backend % 256);
            text +=
                &format!("[[service.backend]]\nname = \"b{backend}\"\naddress = \"198.19.{high}.{low}\"\n");
        }
    }
    assert_eq!(
        read(&text).unwrap_err(),
        [
            "lb.toml:1: all services: the backends' weights, the tables of maglev and source-hash, and the steps of slow \
             starts need 2172852 slots together, and 2097152 are allowed: use smaller weights, or leave slow_start out of \
             some services"
        ]
    );
    assert!(read(&text.replace("slow_start = \"30s\"\n", "")).is_ok());
}

#[test]
fn as_many_as_are_allowed_and_not_one_more() {
    assert_eq!(read(&services(1024, 4)).unwrap().services.len(), 1024);
    assert_eq!(
        read(&services(1025, 0)).unwrap_err(),
        ["lb.toml:4099: service \"s1024\": one service more than the 1024 that are allowed"]
    );
    assert_eq!(
        read(&services(1, 4097)).unwrap_err(),
        [
            "lb.toml:16391: service \"s0\" backend \"b4096\": one backend more than the 4096 that all services may have \
          together"
        ]
    );
    let nine = services(8, 1)
        + "[[service]]\nname = \"s8\"\nvip = \"203.0.113.10\"\nport = 9\n\
        [[service.backend]]\nname = \"b0\"\naddress = \"198.18.0.0\"\nport = 1\n";
    assert_eq!(
        read(&nine).unwrap_err(),
        [
            "lb.toml:73: service \"s8\" backend \"b0\" address = \"198.18.0.0\": 198.18.0.0 port 1 is a backend of 8 \
          services already, as many as may; give the server another address or port for some of them"
        ]
    );
}

#[test]
fn a_backend_at_run_time_is_admitted_as_one_in_the_file() {
    let config = good(&[]);
    let new = |name: &str, address: [u8; 4], weight| Backend {
        name: name.into(),
        address: address.into(),
        port: None,
        weight,
        backup: false,
    };
    let admitted = config.admits("www", &new("web3", [198, 18, 1, 4], 256)).unwrap();
    assert_eq!(admitted.port, NonZeroU16::new(443), "the service's, by default");
    for (service, backend, told) in [
        (
            "ww",
            new("web3", [198, 18, 1, 4], 1),
            "there is no service \"ww\"; there are www",
        ),
        (
            "www",
            new("web 3", [198, 18, 1, 4], 1),
            "name = \"web 3\": a name is 1 to 63 letters",
        ),
        (
            "www",
            new("web3", [127, 0, 0, 1], 1),
            "address = 127.0.0.1: a loopback address",
        ),
        (
            "www",
            new("web3", [198, 18, 1, 4], 257),
            "weight = 257: a weight is 0 to 256",
        ),
        (
            "www",
            new("web1", [198, 18, 1, 4], 1),
            "name = web1: the service has a backend of this name",
        ),
        (
            "www",
            new("web3", [198, 18, 1, 2], 1),
            "backend \"web1\" of the service has this address and port",
        ),
        (
            "www",
            new("web3", [203, 0, 113, 10], 1),
            "address = 203.0.113.10: this is a VIP",
        ),
    ] {
        let refusal = config.admits(service, &backend).unwrap_err();
        assert!(refusal.contains(told), "{refusal}");
    }
    let mut full = read(&services(8, 1)).unwrap();
    full.services.push(Service {
        name: "s8".into(),
        backends: vec![],
        ..full.services[0].clone()
    });
    let shared = full.services[0].backends[0].clone();
    assert!(
        full.admits("s8", &shared)
            .unwrap_err()
            .contains("198.18.0.0 port 1 is a backend of 8 services already, as many as may")
    );
}
