/** How each architecture is trained for the table of docs/zoo.md: the flags of `fovea train`. */

export interface Recipe {
  readonly model: string
  readonly dataSet: string
  /** Of `fovea train`, besides --model, --dataset, --seed and --out. */
  readonly flags: string
  /** How far this is from the source's own training, or why it was chosen. */
  readonly remark: string
}

const fashion = (model: string, flags: string, remark: string): Recipe => ({
  model,
  dataSet: 'fashion-mnist',
  flags,
  remark,
})
const cifar = (model: string, flags: string, remark: string): Recipe => ({
  model,
  dataSet: 'cifar-10',
  flags,
  remark,
})

const SGD =
  '--batch-size 64 --optimizer sgd --momentum 0.9 --nesterov --weight-decay 5e-3 --schedule cosine --augment crop:4,flip --validation 1000'

export const recipes: readonly Recipe[] = [
  fashion('singh-brar/basic', '--epochs 10', "a fifth of the paper's epochs"),
  fashion('singh-brar/sparse', '--epochs 10', "a fifth of the paper's epochs"),
  fashion('singh-brar/lateral-inhibition', '--epochs 10', "a fifth of the paper's epochs"),
  fashion('wang/dense', '--epochs 10 --schedule cosine', 'the report gives no rate'),
  fashion('wang/cnn', '--epochs 10 --schedule cosine', 'the report gives no rate'),
  fashion('korssjoen/dense', '--epochs 10 --learning-rate 1e-4 --validation 5000', "the report's"),
  fashion(
    'korssjoen/cnn',
    '--epochs 5 --learning-rate 3e-4 --schedule cosine --validation 5000',
    "half of the report's epochs, at three times its rate",
  ),
  fashion('bassas/cnn', '--epochs 3 --schedule cosine', 'the report gives no rate'),
  ...[
    'mlp-1',
    'mlp-2',
    'mlp-3',
    'mlp-3-leaky-relu',
    'mlp-3-tanh',
    'mlp-3-dropout',
    'mlp-3-dropout-256',
    'mlp-3-unnormalized',
  ].map(kind => fashion(`bassas/${kind}`, '--epochs 10 --schedule cosine', 'the report gives no rate')),
  fashion('lenet5', '--epochs 10 --schedule cosine', 'on newer images than its own'),
  cifar(
    'visionnet/plain',
    '--epochs 10 --schedule cosine --augment crop:4,flip',
    "half of the report's epochs",
  ),
  cifar(
    'visionnet/attention-1',
    '--epochs 4 --schedule cosine --augment flip',
    "a fifth of the report's epochs",
  ),
  cifar(
    'visionnet/attention-2',
    '--epochs 5 --schedule cosine --augment flip',
    "a quarter of the report's epochs",
  ),
  cifar(
    'visionnet/attention-3',
    '--epochs 2 --schedule cosine --augment flip',
    "a tenth of the report's epochs",
  ),
  cifar('resnet20', `--epochs 20 --learning-rate 0.05 --warmup 1 ${SGD}`, "an eighth of the paper's images"),
  cifar('resnet32', `--epochs 1 --learning-rate 0.05 ${SGD}`, "a 160th of the paper's images"),
  cifar('resnet56', `--epochs 1 --learning-rate 0.05 ${SGD}`, "a 160th of the paper's images"),
  cifar('densenet-bc', `--epochs 1 --learning-rate 0.05 ${SGD}`, "a 300th of the paper's images"),
  cifar(
    'vgg16',
    '--epochs 1 --learning-rate 1e-4 --schedule cosine --augment flip --top pooling',
    'at 32 px, without its dense layers',
  ),
  cifar('resnet50', '--epochs 1 --schedule cosine --augment flip', 'at 32 px'),
  cifar('xception', '--epochs 1 --schedule cosine --augment flip', 'at 32 px'),
]
