# Buckets and roles of the pipeline on AWS, for OpenTofu or Terraform:
#   cd infra/tofu && tofu init && tofu validate
#   tofu apply -var data_bucket=NAME -var registry_bucket=NAME -var 'trusted=["arn:aws:iam::ACCOUNT:root"]'
# CI does not run `tofu validate`, for no package brings the provider: tests/infra/test_files.py checks syntax, format, references, rights.
# `tofu output -raw environment` prints what the stages need to know of it.
terraform {
  required_version = ">= 1.6"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 5.0"
    }
  }
}

provider "aws" {
  region = var.region
}

variable "region" {
  type    = string
  default = "us-east-1"
}

variable "data_bucket" {
  type        = string
  description = "Shards and DVC's outputs: ALEXNET_BUCKET."
}

variable "registry_bucket" {
  type        = string
  description = "Releases and their aliases: ALEXNET_REGISTRY."
}

variable "trusted" {
  type        = list(string)
  description = "ARNs of who may take the roles: accounts, users, or the roles of nodes and service accounts."
}

variable "lock_days" {
  type        = number
  default     = 365
  description = "For so long no role can delete a version of an object in the registry."
}

variable "lock_mode" {
  type        = string
  default     = "GOVERNANCE"
  description = "COMPLIANCE: nobody, not even the account's owner, can shorten it."
}
