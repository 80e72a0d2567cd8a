// Load bundles with Transformers.js and say what came of it: node load_bundles.mjs REQUEST ANSWER
import fs from 'node:fs';
import path from 'node:path';
import { env, pipeline } from '@huggingface/transformers';

const [requestFile, answerFile] = process.argv.slice(2);
const request = JSON.parse(fs.readFileSync(requestFile, 'utf8'));
env.allowRemoteModels = false;

async function load({ bundle, dtype }) {
  env.localModelPath = path.dirname(bundle);
  const extractor = await pipeline('feature-extraction', path.basename(bundle), { dtype });
  const session = Object.values(extractor.model.sessions)[0];
  const embeddings = [];
  for (const text of request.texts) {
    const output = await extractor(text, { pooling: 'mean', normalize: true });
    embeddings.push(output.tolist()[0]);
  }
  const answer = { error: null, embeddings, outputs: [...session.outputNames].sort() };
  await extractor.dispose();
  return answer;
}

const answer = {};
for (const [name, one] of Object.entries(request.cases)) {
  try {
    answer[name] = await load(one);
  } catch (error) {
    answer[name] = { error: `${error.name}: ${error.message}` };
  }
}
fs.writeFileSync(answerFile, JSON.stringify(answer));
