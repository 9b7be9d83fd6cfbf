import Foundation

/// A private authority, and a server's certificate for localhost under it: `ca.crt`, `server.crt`, `server.key`.
package enum TestAuthority {
  package static func make(in folder: TemporaryFolder) throws {
    let names = try folder.write(
      "names",
      "subjectAltName=DNS:localhost,DNS:s3.localhost,DNS:*.s3.localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n")
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    try Shell.must(
      "openssl",
      ["req", "-x509"] + key + [
        "-days", "30", "-keyout", folder.file("ca.key"), "-out", folder.file("ca.crt"), "-subj", "/CN=Test authority",
        "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign",
      ])
    try Shell.must(
      "openssl",
      ["req"] + key + [
        "-keyout", folder.file("server.key"), "-out", folder.file("server.csr"), "-subj", "/CN=localhost",
      ])
    try Shell.must(
      "openssl",
      [
        "x509", "-req", "-in", folder.file("server.csr"), "-CA", folder.file("ca.crt"), "-CAkey", folder.file("ca.key"),
        "-CAcreateserial", "-days", "30", "-out", folder.file("server.crt"), "-extfile", names,
      ])
  }
}
