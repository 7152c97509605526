use super::*;
#[test]
fn explore() {
    for edits in [
        &[("# daemon", "mettrics = 5")][..],
        &[("# daemon", "[daemon]")],
        &[
            ("# daemon", "socket = 5\nstate_directory = 1.5\nmetrics = true"),
            ("# service", "prt = \"443\"\non_down=5"),
        ],
        &[("port = 443", "port = \"443\"")],
        &[("port = 443", "port = 99999999999999999999")],
        &[(
            "port = 443",
            "port = 999999999999999999999999999999999999999999999999999999999999",
        )],
        &[("# daemon", "socket = ")],
        &[("# daemon", "socket = \"abc")],
        &[("# daemon", "socket = abc")],
        &[("# daemon", "[daemn]\na=1")],
        &[("[daemon]", "[[daemon]]")],
        &[("# service", "[service.healht]\ninterval = \"1s\"")],
        &[(
            "# service",
            "timeouts = { half_open = 5, est = \"5s\", closing = \"1x\" }",
        )],
        &[("# service", "health = 5"), ("[service.health]", "")],
        &[("# service", "backend = 5")],
        &[("# backend", "wieght = 5")],
        &[("# health", "expect_status = \"200\"\npath = 5")],
        &[("# health", "expect_status = [200, \"201\"]\ntype = \"http\"")],
        &[(
            "# site",
            "upstram = 5\nhsts = 5\nredirect_http = \"true\"\ntls_versions = [1.2, \"1.3\"]",
        )],
        &[(
            "# server",
            "via = \"ssh\"\n[site.server.scripts]\nstge = 5\ntest=5",
        )],
        &[("interfaces = [\"eth0\", \"eth1\"]", "interfaces = \"eth0\"")],
        &[("# end", "[[service]]\nname=\"x\"\n[service]\nname=\"y\"")],
        &[("# end", "[daemon.socket]")],
        &[("# daemon", "name = 1979-05-27\nsocket = 1979-05-27")],
        &[("# daemon", "[foo.bar.baz]\nx=1\n[foo.bar]\ny=1")],
        &[("# end", "\u{7}")],
        &[
            ("[[service]]", "[service]"),
            ("[[service.backend]]", "[service.bakend1]"),
            ("[[service.backend]]", "[service.backend]"),
        ],
        &[("[[site.server]]", "[site.server]")],
        &[("[daemon]", "daemon = [[\"eth0\"], \"auto\"]\n[daemn]")],
        &[("[daemon]", "daemon.socket.x = 5\n[daemn]")],
        &[
            ("[daemon]", "service = [5]\n[x]\na=[5,6,{}]"),
            ("[[service]]", "[[service2]]"),
            ("[service.health]", "[service2.health]"),
            ("[[service.backend]]", "[[service2.backend]]"),
            ("[[service.backend]]", "[[service2.backend]]"),
        ],
    ] {
        let e: Vec<(&str, &str)> = edits.to_vec();
        let mut text = GOOD.to_owned();
        for (a, b) in &e {
            text = text.replacen(a, b, 1);
        }
        println!("--- {e:?}");
        match read(&text) {
            Ok(_) => println!("OK"),
            Err(t) => println!("{}", t.join("\n")),
        }
    }
}
