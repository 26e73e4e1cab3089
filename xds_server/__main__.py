"""`python -m xds_server` is `kuma-cp`."""

from xds_server.cli.kuma_cp import main

if __name__ == "__main__":
    main()
