// Drives the live page of the admin listener in a Chromium, as somebody who looks at it would.
//
//   PEERS=FOLDER node tests/page/page.mjs                      runs the tests
//   PEERS=FOLDER node tests/page/page.mjs --screenshots DIR    makes pictures of the page
//
// FOLDER is where `npm ci` has put playwright-core; PROXBOX_BRIDGE_BINARY is the bridge, CHROMIUM the browser.

import { after, before } from "node:test";

import { close, launch } from "./browser.mjs";
import { testConnection } from "./connection.mjs";
import { testLooks } from "./looks.mjs";
import { takePictures } from "./pictures.mjs";
import { testSyncs } from "./syncs.mjs";
import { testTrust } from "./trust.mjs";

if (process.argv[2] === "--screenshots") await takePictures(process.argv[3]);
else describe();

function describe() {
  before(launch);
  after(close);
  testSyncs();
  testTrust();
  testConnection();
  testLooks();
}
