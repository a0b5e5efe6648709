# What each role may do. None may delete from the registry, except the test objects of publish and `alexnet doctor`.
locals {
  data     = aws_s3_bucket.this["data"].arn
  registry = aws_s3_bucket.this["registry"].arn
  get      = ["s3:GetObject", "s3:GetObjectVersion"]
  put      = ["s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]

  roles = {
    # fetch, validate, shard: the data bucket alone.
    prep = {
      list = [local.data]
      allow = {
        data = { actions = concat(local.get, local.put, ["s3:DeleteObject"]), on = ["${local.data}/*"] }
      }
    }
    # train: reads shards; checkpoints and weights are local files.
    train = {
      list = [local.data]
      allow = {
        shards = { actions = local.get, on = ["${local.data}/*"] }
      }
    }
    # evaluate, probe, extract, publish: write releases and move aliases.
    publish = {
      list = [local.data, local.registry]
      allow = {
        data     = { actions = concat(local.get, local.put), on = ["${local.data}/*"] }
        releases = { actions = concat(local.get, local.put), on = ["${local.registry}/*"] }
        probes   = { actions = ["s3:DeleteObject"], on = ["${local.registry}/*/probes/*", "${local.registry}/.doctor/*"] }
      }
    }
    # alexnet pull, predict, trace.
    read = {
      list = [local.registry]
      allow = {
        releases = { actions = local.get, on = ["${local.registry}/*"] }
      }
    }
  }
}

data "aws_iam_policy_document" "role" {
  for_each = local.roles

  statement {
    actions   = ["s3:ListBucket", "s3:GetBucketLocation"]
    resources = each.value.list
  }

  dynamic "statement" {
    for_each = each.value.allow
    content {
      sid       = title(statement.key)
      actions   = statement.value.actions
      resources = statement.value.on
    }
  }
}

data "aws_iam_policy_document" "trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "AWS"
      identifiers = var.trusted
    }
  }
}

resource "aws_iam_role" "this" {
  for_each             = local.roles
  name                 = "alexnet-${each.key}"
  assume_role_policy   = data.aws_iam_policy_document.trust.json
  max_session_duration = 43200 # seconds; boto3 renews a role's credentials by itself
}

resource "aws_iam_role_policy" "this" {
  for_each = local.roles
  name     = "buckets"
  role     = aws_iam_role.this[each.key].id
  policy   = data.aws_iam_policy_document.role[each.key].json
}

output "roles" {
  value = { for name, role in aws_iam_role.this : name => role.arn }
}

output "environment" {
  value = <<-EOT
    export ALEXNET_BUCKET=${var.data_bucket}
    export ALEXNET_REGISTRY=${var.registry_bucket}
    export AWS_DEFAULT_REGION=${var.region}
  EOT
}
