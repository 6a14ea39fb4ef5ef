// Asks a question with nothing but gRPC's reflection service.
// Usage: node ask.js ADDRESS REFLECTION_DESCRIPTOR_SET COLLECTION QUESTION
// Prints the answer's events as JSON lines.
const fs = require("fs");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const [address, reflectionFile, collection, question] = process.argv.slice(2);
const credentials = grpc.credentials.createInsecure();
const SERVICE = "quintet.gateway.v1.GatewayService";

function load(descriptorSet) {
  const options = { enums: String, longs: Number, oneofs: true };
  return grpc.loadPackageDefinition(loader.loadFileDescriptorSetFromBuffer(descriptorSet, options));
}

// A FileDescriptorSet is its files, each as field 1: tag, length, bytes.
function asSet(files) {
  const parts = [];
  for (const file of files) {
    const length = [];
    let rest = file.length;
    while (rest > 127) {
      length.push((rest & 127) | 128);
      rest >>>= 7;
    }
    parts.push(Buffer.from([10, ...length, rest]), file);
  }
  return Buffer.concat(parts);
}

function describe(symbol) {
  const { reflection } = load(fs.readFileSync(reflectionFile)).grpc;
  const client = new reflection.v1alpha.ServerReflection(address, credentials);
  return new Promise((resolve, reject) => {
    const call = client.ServerReflectionInfo();
    call.on("error", reject);
    call.on("data", (response) => {
      if (response.error_response) return reject(new Error(response.error_response.error_message));
      resolve(response.file_descriptor_response.file_descriptor_proto);
      call.end();
    });
    call.write({ file_containing_symbol: symbol });
  });
}

async function main() {
  const { quintet } = load(asSet(await describe(SERVICE)));
  const gateway = new quintet.gateway.v1.GatewayService(address, credentials);
  const deadline = Date.now() + 60_000;
  const whole = await new Promise((resolve, reject) =>
    gateway.Ask({ collection, question }, { deadline }, (error, response) =>
      error ? reject(error) : resolve(response),
    ),
  );
  console.log(JSON.stringify({ event: "whole", answer: whole.answer }));
  const stream = gateway.AskStream({ collection, question }, { deadline });
  for await (const message of stream) console.log(JSON.stringify(message));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
