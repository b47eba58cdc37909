# UNTESTED: written after the manual of nixpkgs, never built. The flake's root is packaging/, its source the folder above.
{
  description = "IPv6 multicast between hosts anywhere: lcroute, lcsync, lcagent, lcgroup, lcradio, lcstudio";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs = { self, nixpkgs }:
    let
      systems = [ "x86_64-linux" "aarch64-linux" ];
      each = make: nixpkgs.lib.genAttrs systems (system: make nixpkgs.legacyPackages.${system});
    in
    {
      packages = each (pkgs: {
        default = pkgs.rustPlatform.buildRustPackage {
          pname = "librecast";
          version = "0.1.0";
          src = ./..;
          cargoLock.lockFile = ../Cargo.lock;
          cargoBuildFlags = [ "--package" "lcroute" "--package" "lcroute-streams" "--package" "lcroute-outside" "--package" "lcroute-reach" "--package" "lcroute-lab" "--package" "lcroute-web" "--package" "lcsync" "--package" "lcagent" "--package" "lcgroup" "--package" "lcradio" "--package" "lcstudio" "--package" "lcstudio-notes" "--package" "packaging-generate" ];
          # they need network namespaces and /dev/net/tun
          doCheck = false;
          nativeBuildInputs = [ pkgs.installShellFiles ];
          buildInputs = [ pkgs.alsa-lib pkgs.libopus ];
          postInstall = ''
            $out/bin/packaging-generate made
            rm $out/bin/packaging-generate
            for program in lcroute-streams lcroute-outside lcroute-reach lcroute-lab lcroute-web lcstudio-notes; do
              install -D -t $out/lib/lcroute $out/bin/$program
              rm $out/bin/$program
              installManPage made/$program/man/*
              install -Dm644 made/$program/copyright $out/share/doc/$program/copyright
            done
            mkdir -p $out/share/lcroute
            web/install target $out/share/lcroute/web
            for program in lcroute lcsync lcagent lcgroup lcradio lcstudio; do
              installManPage made/$program/man/*
              installShellCompletion --bash made/$program/bash/$program --zsh made/$program/zsh/_$program \
                --fish made/$program/fish/$program.fish
              install -Dm644 made/$program/copyright $out/share/doc/$program/copyright
            done
            install -Dm644 -t $out/lib/systemd/system systemd/*.service systemd/*.socket systemd/*.path
            install -Dm644 systemd/lcroute-lan.conf $out/share/lcroute/lan.conf
            substituteInPlace $out/lib/systemd/system/* --replace-quiet /usr/bin/ $out/bin/
          '';
          meta = {
            homepage = "https://github.com/librecast/librecast";
            license = with pkgs.lib.licenses; [ mit asl20 ];
            platforms = systems;
          };
        };
      });
    };
}
