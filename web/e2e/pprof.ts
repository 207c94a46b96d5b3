// Writes small pprof files, for what no real program produces.

/** What a file holds: stacks from the root to the leaf. */
export interface Written {
  type: string;
  unit: string;
  /** Unix milliseconds. */
  time: number;
  stacks: { stack: string[]; value: number }[];
}

/** Encodes an unsigned varint. */
export function varint(value: bigint | number): number[] {
  const bytes: number[] = [];
  let left = BigInt(value);
  for (; left > 127n; left >>= 7n) bytes.push(Number(left & 127n) | 128);
  bytes.push(Number(left));
  return bytes;
}

function field(number: number, value: bigint | number): number[] {
  return [...varint(number << 3), ...varint(value)];
}

function part(number: number, bytes: number[] | Uint8Array): number[] {
  return [...varint((number << 3) | 2), ...varint(bytes.length), ...bytes];
}

/** Encodes a profile, not compressed. */
export function profile({ type, unit, time, stacks }: Written): Uint8Array {
  const strings = ["", type, unit];
  const functions = new Map<string, number>();
  const samples: number[][] = [];
  for (const { stack, value } of stacks) {
    const ids = stack.map((name) => {
      let id = functions.get(name);
      if (id === undefined) {
        id = functions.size + 1;
        functions.set(name, id);
        strings.push(name, `${name}.go`);
      }
      return id;
    });
    samples.push(part(2, [...part(1, ids.reverse().flatMap(varint)), ...part(2, varint(value))]));
  }
  const bytes = [part(1, [...field(1, 1), ...field(2, 2)]), ...samples];
  // A location for each function, of the same id; names and files lie in turn behind type and unit.
  for (const id of functions.values()) {
    bytes.push(part(4, [...field(1, id), ...part(4, [...field(1, id), ...field(2, id)])]));
    bytes.push(part(5, [...field(1, id), ...field(2, 1 + 2 * id), ...field(4, 2 + 2 * id)]));
  }
  for (const text of strings) bytes.push(part(6, new TextEncoder().encode(text)));
  bytes.push(field(9, BigInt(Math.round(time)) * 1_000_000n), field(10, 10_000_000_000));
  return Uint8Array.from(bytes.flat());
}
