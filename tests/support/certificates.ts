/** Certificates for a server on loopback, made by openssl. */

/** What `certificates()` makes; texts in PEM. */
export interface Certificates {
  /** Path of the certificate of an authority that nobody knows. */
  authority: string;
  /** Of the server, by that authority. */
  good: string;
  /** The same, whose time is over. */
  expired: string;
  /** The server's, for both. */
  key: string;
}

/** Makes them in `folder`. */
export async function certificates(folder: string): Promise<Certificates> {
  const openssl = async (line: string, ...more: string[]) => {
    const { success, stderr } = await new Deno.Command("openssl", {
      args: [...line.split(" "), ...more],
      cwd: folder,
      stdin: "null",
    }).output();
    if (!success) throw new Error(new TextDecoder().decode(stderr));
  };
  await openssl(
    "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 3650 -subj",
    "/CN=Lab authority",
  );
  await openssl("req -newkey rsa:2048 -nodes -keyout key.pem -out server.csr -subj /CN=localhost");
  await Deno.writeTextFile(`${folder}/ext`, "subjectAltName=DNS:localhost,IP:127.0.0.1\n");
  await Deno.writeTextFile(`${folder}/index.txt`, "");
  await Deno.writeTextFile(
    `${folder}/ca.conf`,
    "[ca]\ndefault_ca=own\n[own]\ndatabase=index.txt\nnew_certs_dir=.\nrand_serial=yes\n" +
      "default_md=sha256\npolicy=any\n[any]\ncommonName=supplied\n",
  );
  await openssl(
    "ca -batch -config ca.conf -cert ca.pem -keyfile ca.key -in server.csr -out expired.pem " +
      "-extfile ext -notext -startdate 20200101000000Z -enddate 20200102000000Z",
  );
  await openssl(
    "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out good.pem " +
      "-extfile ext -days 30",
  );
  const read = (name: string) => Deno.readTextFile(`${folder}/${name}`);
  return {
    authority: `${folder}/ca.pem`,
    good: await read("good.pem"),
    expired: await read("expired.pem"),
    key: await read("key.pem"),
  };
}
