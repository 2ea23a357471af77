import { assert } from "@std/assert";
import fc from "fast-check";
import { ProvisioningError } from "../../connectors/support/errors.ts";
import { parseBmap } from "../../connectors/support/image/bmap.ts";
import { mutated } from "./inputs.ts";
import { type FuzzTarget, plainTarget } from "./target.ts";

const VALID = `<?xml version="1.0" ?><!-- <ImageSize> --><bmap version="2.0">
<ImageSize> 14336 </ImageSize><BlockSize> 4096 </BlockSize><BlocksCount> 4 </BlocksCount>
<MappedBlocksCount> 3 </MappedBlocksCount><ChecksumType> sha256 </ChecksumType>
<BlockMap><Range chksum="${"0a".repeat(32)}"> 0-1 </Range><Range> 3 </Range></BlockMap></bmap>`;

/** What is in a block map is refused, or are ranges that lie in the image, one behind the other. */
export const blockMaps: FuzzTarget = plainTarget(
  "block maps of images",
  fc.property(mutated(VALID), (content) => {
    const text = typeof content === "string" ? content : new TextDecoder().decode(content);
    try {
      const { ranges, imageSize, mappedSize } = parseBmap(text, "m");
      let next = 0;
      let sum = 0;
      for (const { at, length } of ranges) {
        assert(at >= next && length > 0 && at + length <= imageSize, `${at} ${length}`);
        next = at + length;
        sum += length;
      }
      assert(sum === mappedSize);
    } catch (error) {
      assert(error instanceof ProvisioningError, String(error));
    }
  }),
);
