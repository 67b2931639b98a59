#!/usr/bin/env bash
# The tests of AMX's and AVX-VNNI's kernels on the instructions themselves, emulated: Bochs is a Sapphire Rapids that boots Linux, for some minutes.
#
#     scripts/test-amx.sh                # builds the kernels' unit tests
#     scripts/test-amx.sh EXECUTABLE     # which were built before
#
# Needs Debian 13's bochs (3.0), bochsbios, vgabios, isolinux, syslinux-common, xorriso, cpio, zstd, python3, binutils and
# linux-image-cloud-amd64, whose kernel is booted (KERNEL=... for a file of another place). The executable is the only process: what it says goes to the serial
# line, and with its end the kernel panics, which names its exit status.
#
# Linux offers tiles only where they can be disabled (XFD), which Bochs 3.0 cannot, and with tiles on from the start it does not boot in
# Bochs. So it starts without them, and Bochs's debugger changes one function in memory before the kernel begins: what a process calls to
# be permitted tiles switches them on. They are not saved when threads take turns then, hence only tests of one thread. Nor tests that
# round f32 to bf16: this Bochs's VCVTNE2PS2BF16 gives the lower half of its result twice. Its TDPBSUD takes the bytes of both sides as
# unsigned, which later ones do not: a copy of it is run in which those of the left side have signs.
set -euo pipefail
executable=${1:+$(realpath "$1")}
cd "$(dirname "${BASH_SOURCE[0]}")/.."
kernel=${KERNEL:-$(ls -v /boot/vmlinuz-*-cloud-amd64 2> /dev/null | tail -n 1 || true)}
for program in bochs-bin nm xorriso cpio zstd python3; do
    if ! command -v "$program" > /dev/null || [[ -z $kernel ]]; then
        echo "error: $program or Debian's cloud kernel is missing" >&2
        echo "hint: apt-get install bochs bochsbios vgabios isolinux syslinux-common xorriso cpio zstd python3 binutils linux-image-cloud-amd64" >&2
        exit 1
    fi
done
if [[ -z $executable ]]; then
    executable=$(cargo test --release --workspace --lib --no-run 2>&1 | sed -n 's/.*(\(.*openelm_kernels-[0-9a-f]*\)).*/\1/p')
fi

work=$(mktemp -d)
emulator=
trap '[[ -z $emulator ]] || kill "$emulator" 2> /dev/null || true; rm -rf "$work"' EXIT
mkdir -p "$work/system" "$work/disc"
strip -o "$work/system/tests" "$executable"
ldd "$executable" | grep -o '/[^ ]*' | while read -r library; do install -D "$library" "$work/system$library"; done
(cd "$work/system" && find . | cpio --quiet -o -H newc | gzip -1) > "$work/disc/system.gz"
cp "$kernel" "$work/disc/linux"
cp /usr/lib/ISOLINUX/isolinux.bin /usr/lib/syslinux/modules/bios/ldlinux.c32 "$work/disc"
# Without ACPI: Bochs does not come back from the system management mode that switches it on.
cat > "$work/disc/isolinux.cfg" << END
default tests
label tests
    kernel /linux
    append initrd=/system.gz rdinit=/tests console=ttyS0 loglevel=1 nokaslr mitigations=off acpi=off clearcpuid=amx_tile -- amx::tests amx_bytes::tests avxvnni_bytes::tests --skip threads --skip registers --test-threads=1 --nocapture
END
xorriso -report_about WARNING -as mkisofs -quiet -o "$work/disc.iso" -b isolinux.bin -no-emul-boot -boot-load-size 4 -boot-info-table "$work/disc"

python3 - "$kernel" > "$work/commands" << 'END'
import re, struct, subprocess, sys

image = open(sys.argv[1], "rb").read()
start = (image[0x1F1] + 1) * 512 + struct.unpack_from("<I", image, 0x248)[0]
packed = image[start : start + struct.unpack_from("<I", image, 0x24C)[0] - 4]
kernel = subprocess.run(["zstd", "-dc"], input=packed, stdout=subprocess.PIPE, check=True).stdout
entry, headers = struct.unpack_from("<QQ", kernel, 24)
segments = [struct.unpack_from("<QQQQ", kernel, headers + 56 * i + 8) for i in range(struct.unpack_from("<H", kernel, 56)[0])]
# fpu_xstate_prctl, after its registers are saved.
begin = rb"\x41\x57\x48\x89\xf1\x41\x56\x41\x55\x41\x54\x55\x53\x48\x83\xec\x08(?=\x81\xff\x23\x10\x00\x00)"
found = [match.end() for match in re.finditer(begin, kernel)]
if len(found) != 1:
    sys.exit("error: this kernel permits tiles by other instructions\nhint: use Debian's cloud kernel 6.12")
# xor ecx, ecx; xgetbv; or eax, 0x60000; xsetbv; return 0
code = bytes.fromhex("31c9 0f01d0 0d00000600 0f01d1 31c0 4883c408 5b 5d 415c 415d 415e 415f c3")
base = next(address - offset for offset, _, address, size in segments if offset <= found[0] < offset + size)
print(f"lb {entry:#x}\nc")
for at, byte in enumerate(code, base + found[0]):
    print(f"setpmem {at:#x} 1 {byte:#x}")
print("del 1\nc")
END
python3 - "$(command -v bochs-bin)" "$work/bochs" << 'END'
import os, struct, subprocess, sys

program = bytearray(open(sys.argv[1], "rb").read())
symbols = subprocess.run(["nm", "-DS", sys.argv[1]], stdout=subprocess.PIPE, check=True, text=True).stdout
found = [line.split() for line in symbols.splitlines() if "TDPBSUD" in line]
headers, count = struct.unpack_from("<Q", program, 32)[0], struct.unpack_from("<H", program, 56)[0]
segments = [struct.unpack_from("<IIQQQQ", program, headers + 56 * i) for i in range(count)]
# movzx r8d, dl; movzx eax, dh; movzx r8d, r8b; shr edx, 24: edx holds four bytes of the left side. Their forms with signs are as long.
signs = {"440fb6c2": "440fbec2", "0fb6c6": "0fbec6", "450fb6c0": "450fbec0", "c1ea18": "c1fa18"}
for address, size, *_ in found[:1]:
    address, size = int(address, 16), int(size, 16)
    start = next(offset + address - base for kind, _, offset, base, _, room in segments if kind == 1 and base <= address < base + room)
    body = bytes(program[start : start + size])
    if all(body.count(bytes.fromhex(code)) == 1 for code in signs):
        for code, signed in signs.items():
            body = body.replace(bytes.fromhex(code), bytes.fromhex(signed))
        program[start : start + size] = body
        break
else:
    sys.exit("error: this Bochs multiplies bytes by other instructions\nhint: use Debian 13's bochs 3.0+dfsg-1")
open(sys.argv[2], "wb").write(program)
os.chmod(sys.argv[2], 0o755)
END
cat > "$work/bochsrc" << END
cpu: model=sapphire_rapids, ips=50000000
megs: 512
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
ata0-master: type=cdrom, path=$work/disc.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=$work/serial
log: $work/log
display_library: rfb, options="timeout=0"
speaker: enabled=0
END
touch "$work/serial"
timeout 1200 "$work/bochs" -q -debugger -rc "$work/commands" -f "$work/bochsrc" < /dev/null > "$work/screen" 2>&1 &
emulator=$!
until grep -q 'end Kernel panic' "$work/serial"; do
    if ! kill -0 "$emulator" 2> /dev/null; then
        cat "$work/serial"
        tail -n 20 "$work/screen" >&2
        echo "error: the emulator ended before the tests did" >&2
        exit 1
    fi
    sleep 2
done
sleep 2
# The kernel's own messages may stand in the middle of a line.
tr -d '\r' < "$work/serial" | sed -z 's/\[ *[0-9]*\.[0-9]*\] [^\n]*\n//g' | grep -v '^$' | tee "$work/said"
grep -q 'exitcode=0x00000000' "$work/serial"
for expected in 'instructions and model agree' 'instructions and model agree on bytes' 'products of bytes and dot products agree'; do
    grep -q "tiles: $expected\$" "$work/said"
done
grep -q 'avx-vnni: products by fours and in pairs agree$' "$work/said"
